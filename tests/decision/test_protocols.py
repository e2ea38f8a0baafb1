"""What protocols of one file share and what not: runs are made once, and what is asked of them is listed."""

import json
import re
import sys
from pathlib import Path

import pytest
import try_im_jobs
from row_files import write
from test_split import texts
from try_im_jobs import Jobs, Try, answer_in, folder_of, work_of

from instruction_modelling.decision.answer import EXPECTED_VARIANCES, file_rows
from instruction_modelling.decision.crossed import expected_half_width
from instruction_modelling.decision.look import alone
from instruction_modelling.decision.task_score import SCORES
from instruction_modelling.errors import UserError

# The fixtures of this module.
jobs, attempt = try_im_jobs.jobs, try_im_jobs.attempt


def test_another_set_of_arms_runs_what_is_missing_alone(jobs: Jobs, attempt: Try, tmp_path: Path) -> None:
    assert attempt("--arms", "IT", "IM", "--shown_responses", 0) == 0
    before = answer_in(folder_of(tmp_path))
    jobs.ran.clear()
    assert attempt("--arms", "IT", "IM", "IM-w0.1", "--shown_responses", 0) == 0
    trained = [name for name in jobs.ran if name.startswith("train")]
    assert trained == [f"train IM-w0.1, seed {seed}" for seed in range(5)]
    assert all("IM-w0.1" in name for name in jobs.ran)
    after = answer_in(folder_of(tmp_path, 1))
    assert after["hypotheses"]["H1"]["by_seed"] == before["hypotheses"]["H1"]["by_seed"]
    assert [other["differs_in"] for other in after["other_protocols"]] == [["arms"]]
    # Another rate is another run, in a folder of its own.
    jobs.ran.clear()
    assert attempt("--arms", "IT", "IM", "--learning_rate", "3e-4", "--shown_responses", 0) == 0
    assert sum(name.startswith("train") for name in jobs.ran) == 10


def test_an_arm_of_the_same_name_and_another_rule_has_rows_anew(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    arms = tmp_path / "mine.toml"
    jobs.gains["few"] = 0.0
    for rows in (7, 9):
        arms.write_text(f"[few]\nflags = []\nselect = {{ rows = {rows} }}\n")
        jobs.ran.clear()
        assert attempt("--arms", "IT", "IM", "few", "--arms_file", arms) == 0
        file = work_of(tmp_path) / "split" / "train-few-seed3.jsonl"
        assert len(file.read_text().splitlines()) == rows and "train few, seed 3" in jobs.ran


def test_arms_that_different_code_made_are_named(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One line for JSON, and several for some readers of lines: what is read again is to be the same.
    rows = [{"prompt": f"{user}\u2028and\x85so", "completion": answer} for user, answer in texts(130)]
    write(tmp_path, *rows)
    assert attempt("--arms", "IT", "IM") == 0
    assert answer_in(folder_of(tmp_path))["made_differently"] == []
    for arm, commit in (("IT", "a"), ("IM", "b")):
        for seed in (1, 3):
            record = work_of(tmp_path) / "runs" / f"{arm}-seed{seed}" / "run.json"
            record.write_text(json.dumps({"git_commit": commit, "versions": {"torch": "2.1"}}))
    assert attempt("--arms", "IT", "IM") == 0
    assert answer_in(folder_of(tmp_path))["made_differently"] == ["those of seed 1, 3 in code"]
    assert "Arms were not all made alike, those of seed 1, 3 in code: what tells" in capsys.readouterr().out


def test_one_process_at_a_time_works_on_the_runs(tmp_path: Path) -> None:
    again = pytest.raises(UserError, match=r"another src/try_im\.py is at work in it")
    with alone(tmp_path / "new"), again, alone(tmp_path / "new"):
        pass
    with alone(tmp_path / "new"):
        pass


# -- a budget -----------------------------------------------------------------------------------------------


def test_a_budget_chooses_among_the_arms_that_are_asked_for_now(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    jobs.rate = 1e9
    jobs.gains |= {"KL": 0.0, "NEFTune": 0.0}
    for name in ("KL", "NEFTune"):
        assert attempt("--budget", "4m", "--shown_responses", 0, "--arms", "IT", "IM", name) == 0
    chosen = [
        [arm["name"] for arm in json.loads((folder_of(tmp_path, n) / "protocol.json").read_text())["arms"]]
        for n in (0, 1)
    ]
    assert chosen == [["IT", "IM", "KL"], ["IT", "IM", "NEFTune"]]


def test_a_budget_with_time_left_takes_more_seeds_at_the_first_look(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    # A run and its measurements are 12 s: 60 s an arm of five seeds, 96 s of eight, 144 s of twelve.
    jobs.rate = 1e9
    given = ("--arms", "IT", "IM", "--shown_responses", 0, "--budget")
    for budget, seeds in (("2.5m", 5), ("4m", 8), ("9m", 12)):
        assert attempt(*given, budget, "--learning_rate", 1e-4 * seeds) == 0
        (folder,) = (
            path.parent
            for path in (tmp_path / "out").glob("*/protocol.json")
            if json.loads(path.read_text())["budget"] == budget
        )
        answer = answer_in(folder)
        assert answer["seeds"] == seeds and [look["seeds"] for look in answer["looks"]] == [seeds]
        # Each look has a third of the error, whichever is the first.
        assert answer["hypotheses"]["H1"]["confidence"] == pytest.approx(1 - 0.05 / 3)
        # The same call again is the same look, though a clock runs otherwise.
        jobs.rate = 1.0
        assert attempt(*given, budget, "--learning_rate", 1e-4 * seeds) == 0
        assert answer_in(folder)["seeds"] == seeds
        jobs.rate = 1e9
    assert len(list((tmp_path / "out").glob("*/protocol.json"))) == 3


def test_the_cost_names_disk_a_gpu_and_the_size_that_would_do(
    jobs: Jobs, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt("--arms", "IT", "IM", "--dry_run", "--gpu", "a100,H100") == 0
    said = capsys.readouterr().out
    assert "the disk holds one tuned model at a time (" in said and "on one GPU (a100, 312 TFLOP/s" in said
    assert "on one GPU (H100, 989 TFLOP/s" in said
    # By the guessed variance of seeds alone, 5 of them are too few for any number of rows.
    rows = int(
        re.findall(r"a smaller one is likely to end in `cannot tell`; ([\d,]+) test rows and 8 seeds", said)[
            0
        ]
    )
    seed, row, rest = EXPECTED_VARIANCES
    confidence = 1 - 0.05 / 3
    assert expected_half_width((seed, row, rest), 8, rows, confidence) <= 0.05
    assert expected_half_width((seed, row, rest), 8, rows - 1, confidence) > 0.05
    assert expected_half_width((seed, row, rest), 5, 10**6, confidence) > 0.05
    assert attempt("--dry_run", "--gpu", "H100,fast") == 2
    assert "--gpu fast: give one of RTX-3090" in capsys.readouterr().err


def test_a_file_has_as_many_test_rows_as_are_needed() -> None:
    # A third up to 300, then as many up to a fifth.
    assert [file_rows(rows) for rows in (40, 300, 301, 1000)] == [120, 900, 1505, 5000]


# -- a score of one's own -----------------------------------------------------------------------------------

SCORE = "import json, sys\nfor line in open(sys.argv[1]):\n    print(len(json.loads(line)['response']))\n"


def test_a_command_is_tried_on_references_before_anything_is_trained(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "score.py"
    script.write_text("print('good')")
    given = ("--arms", "IT", "IM", "--task_score")
    for command, why in (
        (f"{sys.executable} {script}", "it must be a finite number"),
        ("pyhton score.py", "No such file or directory: 'pyhton'"),
        ("python 'score.py", "No closing quotation"),
    ):
        assert attempt(*given, command) == 2
        assert why in capsys.readouterr().err
    assert jobs.ran == [] and not (tmp_path / "out").exists()
    script.write_text(SCORE)
    assert attempt(*given, f"{sys.executable} {script}") == 0
    # Another script under the same name is another score of the same runs.
    scores = work_of(tmp_path) / "runs" / "IM-seed0" / "eval" / "test" / SCORES
    assert json.loads(scores.read_text())["scores"]["0"] == len("IM says")
    count = len(jobs.ran)
    script.write_text(SCORE.replace("print(", "print(1 +"))
    assert attempt(*given, f"{sys.executable} {script}") == 0
    assert json.loads(scores.read_text())["scores"]["0"] == len("IM says") + 1 and len(jobs.ran) == count
    assert answer_in(folder_of(tmp_path, 1))["other_protocols"][0]["differs_in"] == ["task"]
    # All rows are answered, so those that are shown are.
    assert attempt("--arms", "IT", "IM") == 0
    assert all(name.startswith("delete") for name in jobs.ran[count:])


# -- going on -----------------------------------------------------------------------------------------------


def test_a_next_look_with_an_arm_that_stops_by_training_rows_can_be_reckoned(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.gains["IT-matched-loss"] = 0.0
    jobs.trial["IT-matched-loss"] = [{"step": 2, "eval_response_nll": 0.1}]
    given = ("--arms", "IT", "IM", "IT-matched-loss")
    assert attempt(*given) == 0
    capsys.readouterr()
    assert attempt(*given, "--next_look", "--dry_run") == 0
    assert "this look: 8 seeds of 3 arms" in capsys.readouterr().out
    assert not (work_of(tmp_path) / "split" / "train-seed7.jsonl").exists()
    changed = work_of(tmp_path) / "split" / "train-seed1.jsonl"
    changed.write_text(changed.read_text().replace("word", "world", 1))
    assert attempt(*given) == 2
    assert f"{changed} was changed since it was made" in capsys.readouterr().err


def test_the_model_to_train_in_the_end_is_the_best_on_validation_rows(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, *({"prompt": user, "completion": answer} for user, answer in texts(210)))
    jobs.gains |= {"tuned-IT": 0.1, "tuned-IM": 0.4}
    jobs.gains |= {f"tuned-{arm}-trial{number}": number / 9 for arm in ("IT", "IM") for number in range(1, 7)}
    assert attempt("--arms", "IT", "IM", "--tune") == 0
    answer = answer_in(folder_of(tmp_path))
    flags = ["--learning_rate", "0.0002", "--num_train_epochs", "6", "--instruction_loss_weight", "0.3"]
    assert answer["tuned_settings"]["tuned-IM"] == flags and answer["winner"] == "tuned-IM"
    words = f"Chosen on the validation rows: tuned-IT {' '.join(flags[:4])}; tuned-IM {' '.join(flags)}."
    assert any(line.endswith(words) for line in answer["answer"])
    label, command = answer["next"][-1]
    assert label == "Train tuned-IM on all rows:" and command.endswith(" ".join(flags))
    assert words in capsys.readouterr().out
