"""The best weights of a run are saved, and a run that gets no better ends, also across a kill."""

import json
import math
import shutil
import sys
from pathlib import Path

import checkpoint_runs
import pytest
import torch
from checkpoint_runs import RESUME, attempt, interrupt
from safetensors.torch import load_file
from same_run_backends import BACKENDS
from tiny import make_tiny_model
from training_runs import (
    ROOT,
    finetune,
    free_port,
    launch,
    metrics,
    record,
    run,
    same_bits,
    sample_rows,
    weights,
    write_rows,
)

from instruction_modelling.runs.best import Best
from instruction_modelling.runs.export import export_checkpoint

quiet = checkpoint_runs.quiet
# Twelve steps, of which the sixth has the lowest loss on held.jsonl, and the second the lowest before it.
STEPS, FIRST_BEST, BEST = 12, 2, 6
RUN = (
    *("--learning_rate", 0.05, "--lr_scheduler_type", "constant", "--warmup_ratio", 0),
    *("--per_device_train_batch_size", 10, "--gradient_accumulation_steps", 1, "--num_train_epochs", 6),
    *("--eval_steps", 1),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(20))
    write_rows(folder / "held.jsonl", sample_rows(6, "brief_answers_test"))
    return folder


def arguments(place: Path, *more: object) -> tuple[object, ...]:
    return (*RUN, "--eval_file", place / "held.jsonl", *more)


def tune(place: Path, folder: Path, *more: object) -> Path:
    return finetune(place / "model", place / "rows.jsonl", folder, *arguments(place, *more))


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ends after the eleventh step, five measurements after the best."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return tune(place, folder, "--keep_best", "--early_stopping_patience", 5, "--checkpointing_steps", 2)


def evaluated(folder: Path) -> dict[int, float]:
    lines = [line for line in metrics(folder) if "eval_rows" in line]
    return {line["step"]: line["eval_response_nll"] for line in lines}


def test_the_weights_of_the_lowest_loss_are_saved_bit_for_bit(whole: Path) -> None:
    losses = evaluated(whole)
    assert min(losses, key=losses.__getitem__) == BEST and list(losses) == list(range(1, 12))
    stored = load_file(whole / f"step_{BEST}" / "state-000-0000.safetensors")
    saved = weights(whole)
    assert all(torch.equal(saved[name], stored[f"weight/model.{name}"]) for name in saved)
    last = load_file(whole / "step_10" / "state-000-0000.safetensors")
    assert not all(torch.equal(saved[name], last[f"weight/model.{name}"]) for name in saved)


def test_what_the_run_leaves_says_so(whole: Path, tmp_path: Path) -> None:
    said, losses = record(whole), evaluated(whole)
    assert said["finished"] and (said["steps"], said["planned_steps"]) == (11, 12)
    assert said["epochs"] == pytest.approx(11 / 2)
    assert said["best"] == {"step": BEST, "evaluation_loss": losses[BEST], "kept": True}
    assert (
        f"the weights of step 6, of the lowest loss ({losses[BEST]:.4f})" in (whole / "README.md").read_text()
    )
    assert "ended after 11 of 12 steps, the lowest loss after 6" in (whole / "README.md").read_text()
    # The checkpoints speak of both, and only of these; each can be had as a model.
    assert sorted(path.name for path in whole.glob("best_*")) == ["best_2", "best_6"]
    assert json.loads((whole / "step_4" / "checkpoint.json").read_text())["best"]["step"] == FIRST_BEST
    exported = export_checkpoint(whole / "best_2", tmp_path / "exported")
    assert exported["steps"] == FIRST_BEST and exported["epochs"] == 1
    stored = load_file(whole / "step_2" / "state-000-0000.safetensors")
    assert all(
        torch.equal(found, stored[f"weight/model.{name}"])
        for name, found in weights(tmp_path / "exported").items()
    )


def test_a_run_that_goes_on_from_before_the_best_ends_as_the_undisturbed_one(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed after the sixth step found better weights, it goes on from the fourth, with the second's."""
    more = arguments(place, "--keep_best", "--early_stopping_patience", 5, "--checkpointing_steps", 4)
    interrupt(place, tmp_path, 7, *more)
    assert sorted(path.name for path in tmp_path.glob("best_*")) == ["best_2", "best_6"]
    outcome = attempt(place, tmp_path, *more, *RESUME)
    assert outcome.code == 0, outcome.err
    assert same_bits(tmp_path, whole) and evaluated(tmp_path) == evaluated(whole)
    assert record(tmp_path)["best"] == record(whole)["best"]


def test_patience_that_was_used_up_before_a_kill_is_used_up(place: Path, whole: Path, tmp_path: Path) -> None:
    """The tenth step's checkpoint has four measurements since the best."""
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "run.json").unlink()
    (folder / "model.safetensors").unlink()
    more = arguments(place, "--keep_best", "--early_stopping_patience", 5, "--checkpointing_steps", 2)
    outcome = attempt(place, folder, *more, *RESUME)
    assert outcome.code == 0 and same_bits(folder, whole) and list(evaluated(folder))[-1] == 11


def test_learning_rates_are_those_of_the_whole_plan_and_the_last_weights_stay(
    place: Path, tmp_path: Path
) -> None:
    linear = ("--lr_scheduler_type", "linear", "--learning_rate", 0.01, "--num_train_epochs", 4)
    folder = tune(place, tmp_path / "run", *linear, "--early_stopping_patience", 1)
    plain = tune(place, tmp_path / "plain", *linear)
    steps = [line for line in metrics(folder) if "loss" in line]
    whole = [line for line in metrics(plain) if "loss" in line]
    assert [line["learning_rate"] for line in steps] == pytest.approx([0.01 * (1 - n / 8) for n in range(7)])
    assert [line["loss"] for line in steps] == [line["loss"] for line in whole[:7]] and len(whole) == 8
    said = record(folder)
    assert said["best"] == {"step": 6, "evaluation_loss": evaluated(plain)[6]} and said["steps"] == 7
    assert not list(folder.glob("best_*")) and "planned_steps" not in record(plain)


def test_the_last_step_is_measured_too_and_nothing_is_left_behind(place: Path, tmp_path: Path) -> None:
    last = ("--max_train_steps", 3, "--eval_steps", 2, "--keep_best", "--learning_rate", 1e-3)
    folder = tune(place, tmp_path, *last)
    assert list(evaluated(folder)) == [2, 3] and record(folder)["best"]["step"] == 3
    assert not list(folder.glob("best_*"))
    assert same_bits(folder, tune(place, tmp_path / "plain", "--max_train_steps", 3, "--learning_rate", 1e-3))


def test_what_does_not_fit_is_refused(place: Path, whole: Path, tmp_path: Path) -> None:
    for flags in (("--keep_best",), ("--early_stopping_patience", 2)):
        outcome = attempt(place, tmp_path / "none", *flags)
        assert outcome.code == 2 and f"{flags[0]}: give --eval_file or --task_score too" in outcome.err
    folder = shutil.copytree(whole, tmp_path / "run")
    more = ("--keep_best", "--early_stopping_patience", 5, "--checkpointing_steps", 2)
    other = write_rows(tmp_path / "other.jsonl", sample_rows(3, "brief_answers_test"))
    outcome = attempt(place, folder, *arguments(place, *more), "--eval_file", other, *RESUME)
    assert outcome.code == 2 and "eval_file sha256: " in outcome.err
    outcome = attempt(place, folder, *arguments(place, *more), "--eval_steps", 2, *RESUME)
    assert outcome.code == 2 and "eval_steps: 1 then, 2 now" in outcome.err
    shutil.rmtree(folder / "best_6")
    outcome = attempt(place, folder, *arguments(place, *more), *RESUME)
    assert outcome.code == 2
    assert "goes with the best weights so far, best_6 beside it (--keep_best)" in outcome.err


# A number for each response that changes from step to step and means nothing.
SCORE = """
import json, pathlib, sys
lines = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
assert [json.loads(line) for line in sys.stdin] == lines
for line in lines:
    assert line["reference"] and line["prompt"]
    print(sum(map(ord, line["response"])) % 97)
"""


def test_the_weights_of_the_best_task_score_are_saved_also_across_a_kill(place: Path, tmp_path: Path) -> None:
    score = tmp_path / "score.py"
    score.write_text(SCORE)
    asked = ("--sample_file", place / "held.jsonl", "--sample_steps", 1, "--sample_tokens", 6)
    # The loss on other rows is measured and decides nothing.
    more = (*arguments(place), *asked, "--task_score", f"{sys.executable} {score}", "--keep_best")
    more = (*more, "--checkpointing_steps", 1, "--num_train_epochs", 3)
    folder = tune(place, tmp_path / "run", *more)
    answers = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    by_hand = {
        step: [sum(map(ord, a["response"])) % 97 for a in answers if a["step"] == step]
        for step in range(1, 7)
    }
    assert all(a["score"] in by_hand[a["step"]] for a in answers) and all(
        len(n) == 6 for n in by_hand.values()
    )
    means = {line["step"]: line["task_score"] for line in metrics(folder) if "task_score" in line}
    assert means == {step: pytest.approx(sum(numbers) / 6) for step, numbers in by_hand.items()}
    best = max(means, key=means.__getitem__)
    assert record(folder)["best"] == {"step": best, "task_score": means[best], "kept": True}
    card = (folder / "README.md").read_text()
    assert f"the weights of step {best}, of the best task score ({means[best]:.4f})" in card
    stored = load_file(folder / f"step_{best}" / "state-000-0000.safetensors")
    saved = weights(folder)
    assert all(torch.equal(saved[name], stored[f"weight/model.{name}"]) for name in saved)
    interrupt(place, tmp_path / "killed", 5, *more)
    outcome = attempt(place, tmp_path / "killed", *more, *RESUME)
    assert outcome.code == 0 and same_bits(tmp_path / "killed", folder)
    assert record(tmp_path / "killed")["best"] == record(folder)["best"]
    # Another command tells other weights from each other.
    (tmp_path / "killed" / "run.json").unlink()
    (tmp_path / "killed" / "model.safetensors").unlink()
    outcome = attempt(place, tmp_path / "killed", *more, "--task_score", "wc -l", *RESUME)
    assert outcome.code == 2 and "task_score: " in outcome.err and "'wc -l' now" in outcome.err


def test_patience_goes_by_the_task_score_and_a_command_that_fails_is_one_line(
    place: Path, tmp_path: Path
) -> None:
    asked = ("--sample_file", place / "held.jsonl", "--sample_steps", 1, "--sample_tokens", 2)
    constant = ("--task_score", "sed s/.*/1/ /dev/stdin", "--early_stopping_patience", 2)
    outcome = attempt(place, tmp_path / "none", *RUN[:-2], *asked, *constant)
    # sed reads the file named after its words too, so there are twice as many numbers as responses.
    assert outcome.code == 2 and "printed 12 lines for 6 rows" in outcome.err
    score = tmp_path / "score.py"
    score.write_text("import sys\nprint(*[1 for line in sys.stdin], sep=chr(10))")
    folder = tune(
        place,
        tmp_path / "run",
        *RUN[:-2],
        *asked,
        "--task_score",
        f"{sys.executable} {score}",
        "--early_stopping_patience",
        2,
    )
    assert record(folder)["best"] == {"step": 1, "task_score": 1.0} and record(folder)["steps"] == 3
    card = (folder / "README.md").read_text()
    assert "ended after 3 of 12 steps, the best task score after 1" in card
    outcome = attempt(place, tmp_path / "none", "--task_score", "wc")
    assert outcome.code == 2 and "--task_score: give --sample_file too" in outcome.err


def test_what_is_better_and_how_long_nothing_was() -> None:
    best = Best()
    assert best.state() == {"loss": None, "step": 0, "since": 0} and not best.exhausted(1)
    assert [best.take(step, loss) for step, loss in ((1, 3.0), (2, 2.0), (3, 2.0), (4, math.nan))] == [
        *(True, True, False, False)
    ]
    assert best.state() == {"loss": 2.0, "step": 2, "since": 2}
    assert best.exhausted(2) and not best.exhausted(3) and not best.exhausted(None)
    again = Best()
    again.restore(json.loads(json.dumps(best.state())))
    assert again.state() == best.state() and again.take(5, 1.5) and again.since == 0
    again.restore({"loss": None, "step": 0, "since": 1})
    assert again.take(1, 1e9)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["plain", "ZeRO-3", "FSDP2"])
def test_two_processes_save_their_best_weights_bit_for_bit(backend: str, place: Path, tmp_path: Path) -> None:
    """On a mixture, whose examples are those of one process, so the first losses are too."""
    rows = sample_rows(20)
    files = write_rows(tmp_path / "a.jsonl", rows[:14]), write_rows(tmp_path / "b.jsonl", rows[14:])
    shared = (
        *("--model_name_or_path", place / "model", "--train_file", *files, "--proportions", 1, 2),
        *arguments(place, "--keep_best", "--early_stopping_patience", 3, "--checkpointing_steps", 4),
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert run("finetune", *shared, "--output_dir", one).code == 0
    command = BACKENDS[backend].format(processes=2, port=free_port()).split()
    half = ("--per_device_train_batch_size", 5, "--output_dir", two)
    outcome = launch([*command, ROOT / "src" / "finetune.py", *shared, *half], timeout=280)
    assert outcome.code == 0, outcome.err[-3000:]
    first = [[line["loss"] for line in metrics(folder) if "loss" in line][:3] for folder in (one, two)]
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    best = record(two)["best"]
    assert best["kept"] and best["evaluation_loss"] == min(evaluated(two).values())
    stored: dict[str, torch.Tensor] = {}
    for path in (two / f"best_{best['step']}").glob("*.safetensors"):
        stored |= load_file(path)
    saved = weights(two)
    assert saved and all(torch.equal(saved[name], stored[f"weight/model.{name}"]) for name in saved)
