"""The released recipe's KL term: whole runs against what the authors' code computes, written anew in plain
torch and transformers."""

import json
from pathlib import Path
from typing import Any

import finetune_runs
import pytest
import torch
from oracle import released_chat_labels
from training_runs import finetune, losses, metrics, record, run, same_bits, weights, write_rows

from instruction_modelling.training import launch

place = finetune_runs.place

ROWS, STEPS, RATE = 4, 3, 0.5
RELEASED = (
    *("--recipe", "released", "--chat_format", "tulu", "--optimizer", "sgd", "--learning_rate", RATE),
    *("--lr_scheduler_type", "constant", "--warmup_ratio", 0, "--num_train_epochs", STEPS),
    *("--apply_kl_div_loss", "--save_dtype", "float32"),
)
LAYOUTS: dict[str, tuple[object, ...]] = {
    "one at a time": ("--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 4),
    "two and two": ("--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2),
    "IM": ("--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 4, "--use_lm_loss"),
    "packed": ("--per_device_train_batch_size", 4, "--packing"),
}
CHATS = [
    [("user", "Add 2 and 3."), ("assistant", "5")],
    [("system", "Be brief."), ("user", "Name a colour of the sky."), ("assistant", "Blue, mostly.")],
    [("user", "Hello"), ("assistant", "Hi!"), ("user", "Bye"), ("assistant", "See you soon.")],
    [("user", "Write the letters a to c."), ("assistant", "a b c")],
]


@pytest.fixture(scope="module")
def rows(place: Path) -> Path:
    path = place / "four.jsonl"
    chats = [[{"role": role, "content": text} for role, text in chat] for chat in CHATS]
    write_rows(path, [{"messages": chat} for chat in chats])
    return path


@pytest.fixture
def same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run multiplies as the reference beside it does: at this rate the last digits of float32 grow to 1e-4
    of the way where MKL adds them up and to 2e-4 where oneDNN does, both against float64."""
    monkeypatch.setattr(launch, "use_quicker_float32", lambda: False)


def of_labels(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """log p of each token but the first, given those before it: [n - 1]."""
    log_p = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0, :-1], dim=-1)
    return log_p.gather(1, ids[1:, None])[:, 0]


def as_the_authors(
    place: Path, rows: Path, weight: float, instruction_loss: bool
) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    """Weights after the run, and each step's loss and KL term: micro-batches of one example, accumulated."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    model, base = (AutoModelForCausalLM.from_pretrained(place / "model") for _ in range(2))
    batches = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        numbers = released_chat_labels(
            lambda text: tokenizer(text)["input_ids"],
            json.loads(line)["messages"],
            tokenizer.eos_token,
            2048,
            instruction_loss,
        )
        with torch.no_grad():
            # What their first script stores of the model before tuning: of every token, with a label or not.
            stored = of_labels(base, torch.tensor(numbers[0]))
        batches.append((torch.tensor(numbers[0]), torch.tensor(numbers[1]), stored))
    all_losses, all_kls = [], []
    for _ in range(STEPS):
        loss_of_step = kl_of_step = 0.0
        for ids, labels, stored in batches:
            nll = model(input_ids=ids[None], labels=labels[None], use_cache=False).loss
            mask = (labels[1:] != -100).float()
            kl = ((of_labels(model, ids) - stored) * mask).sum() / mask.sum()
            loss = (nll + weight * kl) / ROWS
            loss.backward()
            loss_of_step += float(loss.detach())
            kl_of_step += float(kl.detach()) / ROWS
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(RATE * parameter.grad)
                parameter.grad = None
        all_losses.append(loss_of_step)
        all_kls.append(kl_of_step)
    return model.state_dict(), all_losses, all_kls


@pytest.mark.usefixtures("same_products")
@pytest.mark.parametrize(
    ("weight", "layout"),
    [(0.1, "one at a time"), (0.1, "two and two"), (0.1, "packed"), (0.7, "IM")],
    ids=str,
)
def test_a_run_is_what_the_authors_code_computes(
    place: Path, rows: Path, tmp_path: Path, weight: float, layout: str
) -> None:
    arm, flags = "IM" if "--use_lm_loss" in LAYOUTS[layout] else "IT", (*RELEASED, *LAYOUTS[layout])
    folder = finetune(place / "model", rows, tmp_path, *flags, "--kl_penalty_ctl", weight)
    wanted, wanted_losses, wanted_kls = as_the_authors(place, rows, weight, arm == "IM")
    assert losses(folder) == pytest.approx(wanted_losses, rel=1e-5)
    assert [line["kl"] for line in metrics(folder)] == pytest.approx(wanted_kls, rel=1e-4, abs=1e-7)
    assert wanted_kls[-1] > 0.1 and wanted_kls[0] == 0
    found, before = weights(folder), weights(place / "model")
    moved, apart = (
        torch.cat([(found[name] - other[name]).flatten() for name in found]).norm()
        for other in (before, wanted)
    )
    assert apart < 1e-4 * moved
    assert record(folder)["arm"] == f"{arm}+released KL {weight:g} (released)"


def test_at_weight_1_nothing_moves_and_the_run_says_why(place: Path, rows: Path, tmp_path: Path) -> None:
    """Table 3: the KL term's gradient is the NLL's with the other sign."""
    adam = ("--optimizer", "adamw", "--learning_rate", 1e-3)
    folder = finetune(place / "model", rows, tmp_path, *RELEASED, *LAYOUTS["one at a time"], *adam)
    assert same_bits(folder, place / "model")
    assert [line["grad_norm"] for line in metrics(folder)] == [0.0] * STEPS
    words = "log p_tuned - log p_base of the tokens with a loss, as the released code computes it"
    assert f"added to the loss: 1 x {words}" in (folder / "train.log").read_text(encoding="utf-8")
    assert f"| NEFTune alpha, KL term | none, 1 x {words} |" in (folder / "README.md").read_text(
        encoding="utf-8"
    )
    assert record(folder)["options"]["kl_estimator"] == "released"


def test_the_estimator_is_one_of_two_by_name(place: Path, rows: Path, tmp_path: Path) -> None:
    exact = finetune(
        place / "model",
        rows,
        tmp_path / "exact",
        *RELEASED,
        *LAYOUTS["one at a time"],
        *("--kl_estimator", "exact", "--kl_direction", "base_to_tuned"),
    )
    assert record(exact)["arm"] == "IT+KL 1 (released)" and not same_bits(exact, place / "model")
    refused = run(
        "finetune",
        *("--model_name_or_path", place / "model", "--train_file", rows, "--output_dir", tmp_path / "no"),
        *(*RELEASED, "--kl_direction", "base_to_tuned"),
    )
    assert (
        refused.code == 2
        and "--kl_direction base_to_tuned: the released code's KL term has no" in refused.err
    )
