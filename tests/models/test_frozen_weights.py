"""Frozen weights in two bytes a number compute, train and save what they do in four, to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from step_samples import EXAMPLES, STEP, random_data, tiny_llama, weigh, wrap
from tiny import make_tiny_model
from training_runs import finetune, metrics, sample_rows, write_rows

from instruction_modelling.models import frozen
from instruction_modelling.models.adapters import AdapterReach, add_lora
from instruction_modelling.training import trainable_model
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.model_check import check_model
from instruction_modelling.training.plan import GlobalBatch, Layout

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def rounded(model: Any, dtype: torch.dtype) -> Any:
    """The model, its weights rounded to numbers of `dtype`, in float32."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype).float()
    return model


def step(model: Any, packing: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """NLLs and gradients of one step in bfloat16."""
    nlls = []
    for batch in step_micro_batches(
        weigh(random_data()), GlobalBatch(STEP, EXAMPLES), Layout(packing, 4, 50)
    ):
        with torch.autocast("cpu", BF16):
            output = model(**batch.tensors())
        output["loss"].backward()
        nlls.append(output["nll"])
    return torch.cat(nlls), {n: w.grad for n, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("stored", [BF16, FP16, FP32], ids=str)
def test_a_step_with_adapters_is_the_same_to_the_bit(stored: torch.dtype, packing: bool) -> None:
    def tuned() -> Any:
        model = rounded(tiny_llama("sdpa_per_example" if packing else "sdpa"), stored)
        torch.manual_seed(1)
        lora = add_lora(model, 4, 8.0, 0.0, AdapterReach(new_tokens=[3, 7]))
        for name, weight in lora.named_parameters():
            if "lora_B" in name or "trainable_tokens" in name:
                torch.nn.init.normal_(weight, std=0.1)
        return lora

    held, whole = tuned(), tuned()
    frozen.hold_in_half(held)
    base = {n: w for n, w in held.named_parameters() if not w.requires_grad and ".token_adapter." not in n}
    linear = {w.dtype for n, w in base.items() if n.endswith("_proj.base_layer.weight")}
    assert linear == {stored}
    others = {w.dtype for n, w in held.named_parameters() if "embed" in n or "norm" in n or w.requires_grad}
    assert others == {FP32}
    (nll, grads), (expected_nll, expected) = step(wrap(held), packing), step(wrap(whole), packing)
    assert torch.equal(nll, expected_nll) and grads.keys() == expected.keys() and len(grads) > 20
    assert all(torch.equal(grads[name], expected[name]) for name in grads)
    with torch.autocast("cpu", BF16):
        check_model(held, packing, "cpu")


def test_a_base_model_that_is_not_saved_is_rounded_whatever_it_holds() -> None:
    def with_base(hold: bool) -> Any:
        base = tiny_llama(seed=5).requires_grad_(False)
        if hold:
            frozen.hold_in_half(base, saved=False)
            assert base.lm_head.weight.dtype == BF16 and base.model.embed_tokens.weight.dtype == FP32
        return wrap(tiny_llama(), kl_weight=0.3, base=base)

    (nll, grads), (expected_nll, expected) = step(with_base(True), False), step(with_base(False), False)
    assert torch.equal(nll, expected_nll)
    assert all(torch.equal(grads[name], expected[name]) for name in expected)


def test_a_head_that_is_the_embeddings_stays() -> None:
    model = rounded(tiny_llama(tie_word_embeddings=True), BF16).requires_grad_(False)
    frozen.hold_in_half(model)
    assert model.lm_head.weight.dtype == model.model.embed_tokens.weight.dtype == FP32
    assert model.model.layers[0].mlp.up_proj.weight.dtype == BF16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and the tiny model as it is published: `bfloat16`, `float16` and `float32`."""
    folder = tmp_path_factory.mktemp("frozen")
    write_rows(folder / "rows.jsonl", sample_rows(8))
    for dtype in (BF16, FP16, FP32):
        path = make_tiny_model(folder / str(dtype)) / "model.safetensors"
        weights = {name: weight.to(dtype) for name, weight in load_file(path).items()}
        save_file(weights, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("dtype", "arm"),
    [
        (BF16, ("--use_lora", "--lora_dropout", 0.1, "--packing")),
        (FP16, ("--use_lora", "--apply_kl_div_loss")),
        (FP32, ("--use_lora",)),
        (BF16, ("--use_lora", "--use_dora")),
        (FP32, ("--apply_kl_div_loss",)),
    ],
    ids=lambda value: str(value) if isinstance(value, torch.dtype) else " ".join(map(str, value)),
)
def test_a_run_saves_the_same_model(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, arm: tuple[object, ...]
) -> None:
    arguments = ("--use_lm_loss", "--max_seq_length", 256, "--per_device_train_batch_size", 4)
    steps = ("--max_train_steps", 2, "--learning_rate", 1e-2, "--mixed_precision", "bf16")
    exact = ("--save_dtype", "float32")

    def run(name: str) -> Path:
        rows, folder = place / "rows.jsonl", tmp_path / name
        return finetune(place / str(dtype), rows, folder, *arguments, *steps, *exact, *arm)

    held = run("held")
    log = (held / "train.log").read_text()
    says = {BF16: "in two bytes a number", FP16: "in two bytes a number", FP32: "stay in float32"}
    if "--use_dora" not in arm:
        assert (says[dtype] in log) == ("--use_lora" in arm)
    monkeypatch.setattr(trainable_model.frozen, "hold_in_half", lambda *arguments, **keywords: None)
    whole = run("whole")
    one, other = (load_file(folder / "model.safetensors") for folder in (held, whole))
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    assert [line["loss"] for line in metrics(held)] == [line["loss"] for line in metrics(whole)]
