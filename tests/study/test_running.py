"""Which runs of a cell are to come, what they are measured on, and that a warm start computes the same."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from row_files import write
from tiny import make_tiny_model
from training_runs import sample_rows, write_rows

from instruction_modelling.comparison.begun import StartsCommands, start_anew
from instruction_modelling.comparison.warm_start import SharedProcess, WarmProcess
from instruction_modelling.decision.protocol import Hypothesis
from instruction_modelling.decision.runs import BASE
from instruction_modelling.errors import UserError
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.study import running
from instruction_modelling.study.cells import PreparedCell, prepare_cell
from instruction_modelling.study.grid import ELSEWHERE_ROWS, StudyCell, confidence
from instruction_modelling.study.options import StudyOptions
from instruction_modelling.study.records import read_record, record_path
from instruction_modelling.study.running import CellPlan, plan_cell, run_plans
from instruction_modelling.study.side_by_side import SideBySide

CELL = StudyCell("small", "dolly", 20, arms=("IT", "IM"), test_rows=30, max_tokens=400, steps=7)


def texts(count: int) -> list[tuple[str, str]]:
    draw, words = random.Random(0), [f"word{n}" for n in range(3000)]
    return [(" ".join(draw.sample(words, 12)), " ".join(draw.sample(words, 8))) for _ in range(count)]


class Start:
    """Stands for a process: a run's losses are its rows' numbers."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.distance = 0.0

    def __call__(self, command: Sequence[str], env: Mapping[str, str], log: Path | None = None) -> "Start":
        self.commands.append(list(command))
        words = command[2:]
        given = {flag: value for flag, value in pairwise(words) if flag.startswith("--")}
        out = Path(given["--output_dir"])
        out.mkdir(parents=True, exist_ok=True)
        if Path(command[1]).stem == "finetune":
            (out / "run.json").write_text(json.dumps({"steps": 7, "seconds": 1.26}))
            trial = [{"step": step, "eval_kl": step / 10} for step in (2, 4, 6)]
            (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in trial))
            return self
        assert given.get("--dtype") == ("float32" if out.name == "all" else None)
        count = len(Path(given["--eval_file"]).read_text().splitlines())
        lines: list[dict[str, Any]] = [
            {"row": row, "nll": {"response": row + 0.123456}, "kl": {"response": self.distance}}
            for row in range(count)
        ]
        lines[1]["nll"] = {"user": 1.0}
        (out / "losses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (out / "summary.json").write_text("{}")
        return self

    def poll(self) -> int:
        return 0

    def wait(self) -> int:
        return 0

    def send_signal(self, number: int) -> None:
        raise AssertionError(number)


@pytest.fixture
def options(tmp_path: Path) -> StudyOptions:
    rows = [{"prompt": user, "completion": answer} for user, answer in texts(210)]
    dolly = write(tmp_path, *rows, name="dolly.jsonl")
    lima = write_rows(tmp_path / "lima.jsonl", sample_rows(40))
    return StudyOptions(
        str(make_tiny_model(tmp_path)),
        str(dolly),
        str(lima),
        str(tmp_path / "out"),
        str(tmp_path / "results"),
    )


def run_all(planned: CellPlan, results: Path, start: StartsCommands) -> dict[str, str]:
    """Runs what is to come of a cell, one run after another; gives what failed, and why."""
    one_by_one = SideBySide([start], StopSignals())
    assert run_plans([planned], results, one_by_one) == []
    return one_by_one.failed


def plan(cell: PreparedCell, options: StudyOptions, others: Any = "refuse") -> CellPlan:
    return plan_cell(cell, Path(options.results_dir), others)


def test_runs_are_recorded_once_and_under_their_key(
    options: StudyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, results, start = prepare_cell(CELL, options), Path(options.results_dir), Start()
    protocol = cell.prepared.protocol
    assert protocol.test_rows == 30 and protocol.shared_flags[-2:] == ("--max_train_steps", "7")
    assert protocol.confidence == pytest.approx(confidence())
    first = plan(cell, options)
    # The untuned model, then what H1 compares, seed by seed; H2's reference is no arm of this cell.
    assert [(run.arm, run.seed) for run in first.to_come[:4]] == [
        *[(BASE, None), ("IT", 0)],
        *[("IM", 0), ("IT", 1)],
    ]
    assert run_all(first, results, start) == {}
    assert len(start.commands) == 1 + 2 * 10
    elsewhere = len(cell.elsewhere.read_text().splitlines())
    assert 10 < elsewhere < ELSEWHERE_ROWS
    kept = read_record(results, "small", "IM", 2)
    assert kept and kept.flags == "--use_lm_loss" and kept.facts == {"steps": 7, "seconds": 1.3}
    assert {part: len(of) for part, of in kept.losses.items()} == {
        **{"test": 30, "elsewhere": elsewhere, "train": 20}
    }
    # Part after part, rounded; a row without a response token keeps its place.
    assert kept.losses["test"][:3] == [0.12346, None, 2.1235] and kept.losses["elsewhere"][0] == 30.123
    trained = (cell.runs.folder / "measured" / "rows-seed2.jsonl").read_text().splitlines()[30 + elsewhere :]
    assert trained == cell.runs.training_file(2).read_text().splitlines()
    again = plan(cell, options)
    assert (again.recorded, again.to_come) == (11, [])
    # One run is gone: it alone is run anew.
    record_path(results, "small", "IT", 4).unlink()
    assert [(run.arm, run.seed) for run in plan(cell, options).to_come] == [("IT", 4)]
    # Other code: refused, kept where a seed is whole, or all done anew.
    monkeypatch.setattr(running, "key_of", lambda cell: {**first.key, "code": "other"})
    with pytest.raises(
        UserError, match=r"small: 10 runs are recorded that something else made:\n.*another code"
    ):
        plan(cell, options)
    assert [run.seed for run in plan(cell, options, "keep").to_come] == [4, 4]
    assert len(plan(cell, options, "redo").to_come) == 11


def test_what_is_confirmed_of_all_cells_is_run_before_what_is_exploratory(options: StudyOptions) -> None:
    h1 = Hypothesis("H1", "IM", "IT")
    asked = [
        replace(CELL, name=name, arms=("IT", "IM", "KL", "NEFTune"), hypotheses=confirmed)
        for name, confirmed in (("one", (h1,)), ("two", ()), ("three", (h1,)))
    ]
    plans = [plan(prepare_cell(cell, options), options) for cell in asked]
    assert [len(planned.to_come) for planned in plans] == [21, 21, 21]
    start = Start()
    queue = SideBySide([start], StopSignals())
    assert run_plans(plans, Path(options.results_dir), queue) == []
    trained = [Path(command[command.index("--output_dir") + 1]).parts for command in start.commands]
    order = [(of[-4], of[-1].split("-seed")[0]) for of in trained if "runs" in of and "all" not in of]
    cells = [cell for cell, _ in order]
    assert cells == ["one"] * 10 + ["three"] * 10 + ["one"] * 10 + ["two"] * 20 + ["three"] * 10
    assert [arm for _, arm in order[:10]] == ["IT", "IM"] * 5
    # An arm is read once it has every seed.
    assert [arm for _, arm in order[20:30]] == ["KL"] * 5 + ["NEFTune"] * 5
    assert [arm for _, arm in order[30:50]] == [arm for arm in asked[1].arms for _ in range(5)]


def test_rows_of_a_kind_are_chosen_by_length_and_ratio(options: StudyOptions, tmp_path: Path) -> None:
    rows = [
        {"prompt": "one two three four five six", "completion": "seven eight"},
        {"prompt": "one", "completion": "two three four five six seven eight"},
        {"prompt": "long " * 300, "completion": "short"},
    ]
    options.dolly = str(write(tmp_path, *(row for row in rows for _ in range(60)), name="d.jsonl"))
    high = StudyCell("h", "dolly", 10, least_ratio=1.0, max_tokens=200)
    with pytest.raises(UserError, match=r"60 usable rows: too few to tell .* With fewer, src/compare.py"):
        prepare_cell(high, options)
    chosen = (Path(options.output_dir) / "data" / "dolly-high.jsonl").read_text().splitlines()
    assert len(chosen) == 60 and all("seven eight" in line and "six" in line for line in chosen)


def test_tuned_arms_are_chosen_once_and_tested_with_their_settings(options: StudyOptions) -> None:
    options.tune = True
    h3 = Hypothesis("H3", "tuned-IM", "tuned-IT")
    tuned = replace(CELL, hypotheses=(h3,), steps=None)
    cell, results, start = prepare_cell(tuned, options), Path(options.results_dir), Start()
    first = plan(cell, options)
    assert not first.is_tuned and len(first.to_come) == 1 + 5 * 4
    assert run_all(first, results, start) == {}
    trials = [command for command in start.commands if "tuning" in " ".join(command)]
    assert len(trials) == 2 * 12 and all("validation" in " ".join(c) for c in trials if "--eval_file" in c)
    # All trials have the same losses here: of equals the first is chosen.
    kept = read_record(results, "small", "tuned-IM", 3)
    assert kept and kept.flags == "--learning_rate 5e-05 --num_train_epochs 3 --instruction_loss_weight 1"
    # Elsewhere, with nothing but the records, the choice is known again.
    options.output_dir += "-again"
    again = plan(prepare_cell(tuned, options), options)
    assert again.is_tuned and (again.recorded, again.to_come) == (21, [])


@pytest.mark.parametrize(("distance", "steps"), [(0.35, "4"), (0.9, None)])
def test_exploratory_arms_have_other_texts_and_end_where_im_does(
    options: StudyOptions, distance: float, steps: str | None
) -> None:
    """IM is measured, and a trial run of IT, before the arm that ends as far from the untuned model."""
    more = ("permuted-beside", "IT-matched-KL")
    results, start = Path(options.results_dir), Start()
    start.distance = distance
    # Recorded before: the target is measured of a run that is made again.
    assert run_all(plan(prepare_cell(replace(CELL, steps=None), options), options), results, start) == {}
    start.commands.clear()
    asked = replace(CELL, steps=None, arms=("IT", "IM", *more))
    cell = prepare_cell(asked, options)
    first = plan(cell, options)
    assert not first.is_matched and {run.arm for run in first.to_come} == set(more)
    assert run_all(first, results, start) == {}
    trained = [" ".join(command) for command in start.commands if "--train_file" in command]
    beside = read_record(results, "small", "permuted-beside", 2)
    assert beside and any("train-permuted-beside-seed2.jsonl" in command for command in trained)
    kept = read_record(results, "small", "IT-matched-KL", 4)
    assert (kept is not None) == (steps is not None)
    of_arm = [command for command in trained if "/runs/IT-matched-KL-seed" in command]
    assert [command.rpartition("--max_train_steps ")[2] for command in of_arm] == [steps] * 5 * bool(steps)
    assert all(
        trained.index(command) > max(n for n, c in enumerate(trained) if "trials" in c) for command in of_arm
    )
    matches = json.loads((results / "runs" / "small" / "matching.json").read_text())["matches"]
    assert [match["target"] for match in matches] == pytest.approx([distance] * 5)
    # Elsewhere, with nothing but the records, nothing is left to do.
    options.output_dir += "-again"
    again = plan(prepare_cell(asked, options), options)
    assert again.is_matched and again.to_come == []


@pytest.mark.slow
def test_a_warm_start_computes_what_a_new_process_does(options: StudyOptions, tmp_path: Path) -> None:
    cell = prepare_cell(CELL, options)
    losses, shared = {}, SharedProcess(keeps_models=False)
    starts: dict[str, StartsCommands] = {"new": start_anew, "warm": WarmProcess, "in turn": shared.start}
    for name, start in starts.items():
        results = tmp_path / name
        options.results_dir = str(results)
        planned = plan(cell, options)
        # The same folders again: what is there is of another start.
        assert run_all(CellPlan(cell, planned.key, 0, planned.to_come[:3]), results, start) == {}
        losses[name] = {
            run.arm: read_record(results, "small", run.arm, run.seed) for run in planned.to_come[:3]
        }
        for path in cell.runs.folder.glob("runs/**/.*.made"):
            path.unlink()
    shared.close()
    for arm in (BASE, "IT", "IM"):
        new, warm, in_turn = losses["new"][arm], losses["warm"][arm], losses["in turn"][arm]
        assert new and warm and new.losses == warm.losses and len(new.losses["test"]) == 30
        # Its process had run the untuned model's job, or those of IT, before.
        assert in_turn and new.losses == in_turn.losses
