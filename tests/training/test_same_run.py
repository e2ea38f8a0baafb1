"""A run is the same on one process and on several, sharded or not: gradients, weights, losses and
evaluations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from same_run import (
    ARMS,
    LAYOUTS,
    STEPS,
    Case,
    Difference,
    Measured,
    difference,
    make_place,
    record_case,
    run_main,
)
from same_run_backends import run_cases
from training_runs import sample_rows

# What two processes hold of a sharded model: half, and the small weights that are kept whole.
HALF = pytest.approx(0.5, abs=0.02)


class OneProcess:
    """What each case gives on one process, computed once."""

    def __init__(self, place: Path, folder: Path):
        self.place, self._folder, self._known = place, folder, dict[Case, Measured]()

    def __getitem__(self, case: Case) -> Measured:
        if case not in self._known:
            self._known[case] = record_case(case, self.place, self._folder / f"{case.layout}, {case.arm}")
        return self._known[case]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneProcess]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield OneProcess(make_place(tmp_path_factory.mktemp("place")), tmp_path_factory.mktemp("alone"))
    torch.set_num_threads(threads)


def check(  # noqa: PLR0913 (the parts of one launch)
    alone: OneProcess, backend: str, cases: list[Case], folder: Path, processes: int = 2, timeout: float = 240
) -> list[Measured]:
    found = run_cases(backend, cases, alone.place, folder, processes, timeout)
    apart = {case: difference(own, alone[case]) for case, own in zip(cases, found, strict=True)}
    assert all(one.small for one in apart.values()), "\n".join(map(str, apart.items()))
    return found


def test_plain_processes(alone: OneProcess, tmp_path: Path) -> None:
    cases = [Case("packed", "IM w=0.3"), Case("padded", "NEFTune")]
    for found in check(alone, "plain", cases, tmp_path / "runs"):
        assert found.share == 1


def test_zero_3(alone: OneProcess, tmp_path: Path) -> None:
    cases = [Case("packed", "IM+KL"), Case("padded", "LoRA+KL")]
    for found in check(alone, "ZeRO-3", cases, tmp_path / "runs"):
        # The KL term's second model too is shared out.
        assert found.share == HALF


@pytest.mark.slow
def test_fsdp_2(alone: OneProcess, tmp_path: Path) -> None:
    cases = [Case("padded left", "IM"), Case("packed", "IM+KL"), Case("padded", "LoRA+KL")]
    for found in check(alone, "FSDP2", cases, tmp_path / "runs"):
        assert found.share == HALF


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_zero_3_with_weights_and_optimiser_in_the_hosts_memory(
    alone: OneProcess, tmp_path: Path, processes: int
) -> None:
    check(
        alone,
        "ZeRO-3 offloading",
        [Case("packed", "IM+KL"), Case("padded", "LoRA")],
        tmp_path / "runs",
        processes,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("backend", "processes"), [("plain", 2), ("ZeRO-3", 2), ("ZeRO-3", 1), ("FSDP2", 2), ("FSDP2", 4)]
)
def test_every_layout_and_arm(alone: OneProcess, tmp_path: Path, backend: str, processes: int) -> None:
    cases = [Case(layout, arm) for layout in LAYOUTS for arm in ARMS]
    check(alone, backend, cases, tmp_path / "runs", processes, timeout=800)


# -- what it is compared with ------------------------------------------------------------------------------


def test_the_comparison_tells_runs_apart(alone: OneProcess) -> None:
    """Each arm is far from the others; packed and padded are near."""
    it, other = alone[Case("padded", "NEFTune")], alone[Case("packed", "IM w=0.3")]
    apart = difference(it, other)
    assert apart.gradient > 0.1 and apart.weights > 0.1 and apart.losses > 0.1 and not apart.small
    assert difference(alone[Case("packed", "NEFTune")], it).small
    assert (
        not Difference(1e-5, 0, 0).small
        and not Difference(0, 1e-4, 0).small
        and not Difference(0, 0, 1e-3).small
    )


def weighted_rows(tokenizer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and Instruction Modelling weights of the place's rows, from the chat's text alone."""
    counted = [oracle.KINDS.index(name) for name in ("system", "user", "assistant", "end")]
    out = []
    for row in sample_rows(19):
        expected = oracle.tulu_chat(row["messages"], "</s>")
        encoded = tokenizer("<s>" + expected.text, add_special_tokens=False, return_offsets_mapping=True)
        kinds = [expected.kind[max(end - len("<s>") - 1, 0)] for _, end in encoded["offset_mapping"]]
        weights = [float(at > 0 and kind in counted) for at, kind in enumerate(kinds)]
        out.append((torch.tensor(encoded["input_ids"][:256]), torch.tensor(weights[:256])))
    return out


def test_one_process_is_a_loop_over_plain_transformers(alone: OneProcess) -> None:
    """Steps of SGD on the mean over examples of the mean NLL over content tokens, one example at a
    time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = alone.place / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    rows = weighted_rows(AutoTokenizer.from_pretrained(folder))
    gradient: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        epoch, within = divmod(step, 3)
        order = np.random.Generator(np.random.Philox(key=[0, epoch])).permutation(len(rows))
        examples = order[within * 8 : within * 8 + 8]
        model.zero_grad()
        for example in examples:
            ids, weights = rows[example]
            logs = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0], dim=-1)
            nll = -logs[torch.arange(len(ids) - 1), ids[1:]]
            ((nll * weights[1:]).sum() / (weights[1:] != 0).sum() / len(examples)).backward()
        gradient = gradient or {
            f"model.{name}": weight.grad.clone() for name, weight in model.named_parameters()
        }
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.1 * weight.grad
    own = alone[Case("padded", "IM")]
    by_hand = Measured(
        gradient,
        own.before,
        {f"model.{name}": weight.detach() for name, weight in model.named_parameters()},
        own.losses,
        own.norms,
        own.kl,
        own.evaluations,
        1.0,
    )
    apart = difference(own, by_hand)
    assert apart.gradient < 1e-6 and apart.weights < 1e-5


def test_a_kl_term_of_no_weight_changes_no_bit_and_of_little_weight_little(
    alone: OneProcess, tmp_path: Path
) -> None:
    arguments = Case("packed", "IM").arguments(alone.place, 1)
    runs = [
        run_main([*arguments, *more, "--output_dir", str(tmp_path / str(number))])
        for number, more in enumerate(
            [
                (),
                ("--apply_kl_div_loss", "--kl_penalty_ctl", "0"),
                ("--apply_kl_div_loss", "--kl_penalty_ctl", "1e-12"),
            ]
        )
    ]
    without, none, little = runs
    for name, weight in without.after.items():
        assert torch.equal(none.after[name], weight)
        torch.testing.assert_close(little.after[name], weight, rtol=1e-5, atol=1e-7)
    assert [line["kl"] for line in none.metrics] == [0] * STEPS
    assert little.metrics[-1]["kl"] > 1e-6
