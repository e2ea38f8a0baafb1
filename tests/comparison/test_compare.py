"""The comparison runner: what is done stays done, what changed is made again, a failure does not stop the
rest."""

import json
import os
from pathlib import Path

import pytest
from script_loader import load_script

from instruction_modelling.errors import UserError

compare = load_script("compare")


def options(tmp_path: Path, **changes: object) -> object:
    rows = tmp_path / "mine.jsonl"
    if not rows.exists():
        rows.write_text(
            "".join(
                json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) + "\n" for i in range(20)
            )
        )
    return compare.CompareOptions(
        **{
            "model_name_or_path": str(tmp_path / "model"),
            "train_file": [str(rows)],
            "output_dir": str(tmp_path / "out"),
            **changes,
        }
    )


def test_a_job_is_done_only_with_its_outputs_its_command_and_its_inputs(tmp_path: Path) -> None:
    source, made = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("a")
    job = compare.Job("j", "script", ["--x", "1"], [made], [source])
    assert not job.done()
    made.write_text("result")
    assert not job.done(), "an output without a stamp may be half-written or another's"
    job.stamp.write_text(job.key())
    assert job.done()
    assert not compare.Job("j", "script", ["--x", "2"], [made], [source]).done(), "another command"
    source.write_text("b")
    assert not job.done(), "another input"
    source.write_text("a")
    made.unlink()
    assert not job.done()


def test_a_trial_with_another_model_is_never_taken_for_a_real_run(tmp_path: Path) -> None:
    jobs = [
        compare.plan(
            options(tmp_path, model_name_or_path=model),
            *compare.split(tmp_path / "mine.jsonl", None, tmp_path),
            tmp_path / "set",
        )[0]
        for model in (str(tmp_path / "tiny"), str(tmp_path / "real"))
    ]
    for trial, real in zip(*jobs, strict=True):
        assert trial.outputs == real.outputs
        for path in trial.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made by the trial")
        trial.stamp.write_text(trial.key())
    assert not any(
        job.done()
        for job in jobs[1]
        if job.script in ("finetune", "compute_loss", "generate") and str(tmp_path / "real") in job.arguments
    )


def test_every_arm_and_seed_is_trained_once_and_measured_on_both_files(tmp_path: Path) -> None:
    made = options(tmp_path, arms=["IT", "IM-w0.3"], seeds=[0, 7])
    train, test = compare.split(tmp_path / "mine.jsonl", None, tmp_path / "out" / "mine")
    jobs, runs = compare.plan(made, train, test, tmp_path / "out" / "mine")
    trained = [job for job in jobs if job.script == "finetune"]
    assert [run.name for run in runs] == ["IT-seed0", "IM-w0.3-seed0", "IT-seed7", "IM-w0.3-seed7"]
    assert [job.arguments[-2:] for job in trained] == [
        ["--seed", "0"],
        ["--instruction_loss_weight", "0.3"],
        ["--seed", "7"],
        ["--instruction_loss_weight", "0.3"],
    ]
    for script, times in (
        ("compute_loss", 10),
        ("generate", 10),
        ("compute_bleu", 10),
        ("score_responses", 10),
    ):
        assert sum(job.script == script for job in jobs) == times


def test_rows_are_held_out_once_and_for_all(tmp_path: Path) -> None:
    options(tmp_path)
    rows = (tmp_path / "mine.jsonl").read_text().splitlines()
    first = [
        path.read_text().splitlines() for path in compare.split(tmp_path / "mine.jsonl", None, tmp_path / "a")
    ]
    again = [
        path.read_text().splitlines() for path in compare.split(tmp_path / "mine.jsonl", None, tmp_path / "b")
    ]
    assert first == again and len(first[1]) == 4 and sorted(first[0] + first[1]) == sorted(rows)
    assert first[1] != rows[-4:] and first[1] != rows[:4]


def test_too_few_rows_to_hold_some_out_is_an_error(tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"prompt": "a", "completion": "b"}\n' * 9)
    with pytest.raises(UserError, match="9 rows are too few"):
        compare.split(few, None, tmp_path / "x")


def test_a_job_in_a_child_cannot_touch_the_parent_and_its_exit_code_comes_back() -> None:
    seen = []

    def fail() -> None:
        seen.append(1)
        raise SystemExit(7)

    assert compare.in_child(fail) == 7 and seen == []
    assert compare.in_child(lambda: None) == 0
    assert compare.in_child(lambda: os.kill(os.getpid(), 9)) == -9


def test_options_name_every_problem(tmp_path: Path) -> None:
    problems = options(tmp_path, arms=["IT", "nonsense"], test_file=["a", "b"]).check()  # type: ignore[attr-defined]
    assert len(problems) == 2 and "nonsense" in problems[0] and "2 files for 1" in problems[1]


@pytest.mark.parametrize("held_out", [True, False])
def test_the_report_is_told_of_the_files_that_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: bool
) -> None:
    asked = options(tmp_path, weights_json=["weights.json"])
    given = Path(asked.train_file[0])  # type: ignore[attr-defined]
    trained = tmp_path / "mine_train.jsonl" if held_out else given
    jobs: list[compare.Job] = []  # type: ignore[name-defined]
    monkeypatch.setattr(compare, "in_child", lambda function: function() or 0)
    monkeypatch.setattr(compare, "run_script", jobs.append)
    compare.report(asked, [tmp_path / "IT-seed0"], [tmp_path / "base"], [trained])
    arguments = jobs[0].arguments
    assert arguments[arguments.index("--train_file") + 1] == str(trained)
    assert ("--weights_json" in arguments) is not held_out
