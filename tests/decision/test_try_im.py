"""The whole command, with jobs that leave losses of a known gain: what it answers, writes and refuses."""

import json
import re
import sys
from pathlib import Path

import pytest
import try_im_jobs
from files_page import check_page
from row_files import write
from script_loader import run_script
from test_split import texts
from tiny import make_tiny_model
from try_im_jobs import HOSTILE, Jobs, Try, answer_in, folder_of, work_of

# The fixtures of this module.
jobs, attempt = try_im_jobs.jobs, try_im_jobs.attempt


def test_it_answers_with_intervals_a_control_and_a_weight(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt("--arms", "IT", "IM", "reweighted-IT", "IM-w0.1") == 0
    said = capsys.readouterr().out
    answer = answer_in(folder_of(tmp_path))
    assert answer["verdict"] == "helps" and answer["seeds"] == 5 and answer["test_rows"] == 43
    first = answer["hypotheses"]["H1"]
    assert first["low"] < 0.2 < first["high"] and first["low"] > 0.15 and len(first["by_seed"]) == 5
    # Two hypotheses, three looks.
    assert first["confidence"] == pytest.approx(1 - 0.05 / 6)
    assert answer["hypotheses"]["H2"]["verdict"] == "no difference that matters"
    assert answer["against_untuned"]["IM"]["mean_gain"] == pytest.approx(0.7, abs=0.02)
    assert answer["chosen_weight"]["arm"] == "IM-w0.1"
    lines = answer["answer"]
    low = f"{first['low']:.3f}"
    assert lines[0].startswith(f"On data, a loss on the instruction helps, by at least {low} nats: the test ")
    assert "lower than IT's (gain +" in lines[0] and lines[0].endswith("(5 seeds, 43 test rows).")
    assert lines[2].startswith("What IM does is explained by reweighting")
    assert all(line in said for line in lines) and "Train IM-w0.1 on all rows:" in said
    # What can be told is said before anything else; the terminal has what the page has.
    assert said.startswith("at this size (5 seeds, 43 test rows) a gain of about ")
    assert "What was not tested:\n- One set of training settings was tried" in said
    assert "Before you use an IM model: A loss on the instruction makes the model learn what users" in said
    assert re.search(r"gain of IM over it \(interval\)\nreweighted-IT +[+-]0\.0", said)
    page = (folder_of(tmp_path) / "answer.html").read_text()
    control = page.partition("Against the controls</h2>")[2].partition("</table>")[0]
    assert "reweighted-IT" in control and "(H2, confirmed)" in control and "IM-w0.1" not in control
    check_page("## An answer: `src/try_im.py`", [answer])
    # Everything is there: nothing is run again, and the answer is the same.
    count = len(jobs.ran)
    assert attempt("--arms", "IT", "IM", "reweighted-IT", "IM-w0.1") == 0 and len(jobs.ran) == count
    assert answer_in(folder_of(tmp_path))["answer"] == lines
    assert answer["looks"] == [{"seeds": 5, "verdicts": {"H1": "helps", "H2": "no difference that matters"}}]


def test_the_page_shows_texts_escaped_or_not_at_all(jobs: Jobs, attempt: Try, tmp_path: Path) -> None:
    assert attempt("--arms", "IT", "IM") == 0
    page = (folder_of(tmp_path) / "answer.html").read_text()
    assert HOSTILE not in page and "&lt;script&gt;" in page and "The answer: helps" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)
    assert attempt("--arms", "IT", "IM", "--no_texts") == 0
    page = (folder_of(tmp_path) / "answer.html").read_text()
    assert "&lt;script&gt;" not in page and "Left out: --no_texts" in page


def test_what_hurts_and_what_does_not_matter(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.gains["IM"] = -0.2
    assert attempt("--arms", "IT", "IM") == 0
    assert answer_in(folder_of(tmp_path))["verdict"] == "hurts"
    hurt = answer_in(folder_of(tmp_path))
    # One hypothesis, three looks.
    p_value = hurt["hypotheses"]["H1"]["p_value"]
    assert hurt["holm_p_values"]["H1"] == pytest.approx(3 * p_value) and 0 < p_value < 0.01
    jobs.gains["IM"] = jobs.gains["reweighted-IT"] = 0.01
    assert attempt("--arms", "IT", "IM", "reweighted-IT", "--learning_rate", "2e-4") == 0
    said = capsys.readouterr().out
    assert "makes no difference that matters (0.05 nats a response token)" in said
    assert "Against reweighting alone, too, IM makes no difference that matters: against" in said


def test_what_cannot_be_told_goes_on_by_looks_and_no_further(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.noise, jobs.gains["IM"] = 0.8, 0.05
    given = ("--arms", "IT", "IM")
    assert attempt(*given) == 3
    said = capsys.readouterr().out
    assert "cannot tell at this size" in said and "--next_look" in said
    answer = answer_in(folder_of(tmp_path))
    rows = answer["hypotheses"]["H1"]["rows_needed"]
    assert rows > 43 and "it would take" in answer["answer"][0]
    assert f"about {rows:,} test rows" in answer["answer"][0]
    for seeds in (8, 12):
        assert attempt(*given, "--next_look") == 3
        assert answer_in(folder_of(tmp_path))["seeds"] == seeds
    # A call without asking for more reads what is there.
    assert attempt(*given) == 3 and answer_in(folder_of(tmp_path))["seeds"] == 12
    assert [look["seeds"] for look in answer_in(folder_of(tmp_path))["looks"]] == [5, 8, 12]
    capsys.readouterr()
    assert attempt(*given, "--next_look") == 2
    assert "that after 12 seeds was the last look" in capsys.readouterr().err


def test_another_margin_is_another_protocol_and_the_first_one_stays_listed(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    assert attempt("--arms", "IT", "IM") == 0
    count = len(jobs.ran)
    assert attempt("--arms", "IT", "IM", "--margin", 0.5) == 0
    # What is asked of the runs changes none of them.
    assert len(jobs.ran) == count
    first, second = folder_of(tmp_path, 0), folder_of(tmp_path, 1)
    check_page("## An answer: `src/try_im.py`", [answer_in(first), answer_in(second)])
    others = answer_in(second)["other_protocols"]
    assert others == [{"id": first.name, "differs_in": ["margin"], "verdicts": [{"H1": "helps"}]}]
    assert answer_in(second)["verdict"] == "no difference that matters"
    assert "Other protocols were tried" in (second / "answer.html").read_text()


def test_arms_of_a_seed_share_their_rows_and_none_is_tested_on_them(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    assert attempt("--arms", "IT", "IM") == 0
    split = work_of(tmp_path) / "split"
    rows = {path.stem: set(path.read_text().splitlines()) for path in split.iterdir()}
    assert {len(rows[f"train-seed{seed}"]) for seed in range(5)} == {37}
    assert rows["train-seed0"] != rows["train-seed1"] and rows["train-seed0"] < rows["pool"]
    assert "for this training file only" not in (folder_of(tmp_path) / "answer.json").read_text()
    assert attempt("--arms", "IT", "IM", "--train_rows", 74) == 0
    assert "for this training file only" in answer_in(folder_of(tmp_path, 1))["answer"][-1]
    assert not rows["test"] & rows["pool"] and not rows["validation"] & (rows["pool"] | rows["test"])


def test_a_dry_run_and_a_status_start_and_write_nothing(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt("--dry_run") == 0
    said = capsys.readouterr().out
    assert "looks: after 5, 8, 12 seeds" in said and "tokens to train on" in said and "a second" in said
    assert attempt("--status") == 0
    said = capsys.readouterr().out
    assert "train IM, seed 4" in said and "delete" not in said and "rows left out" not in said
    assert jobs.ran == [] and not (tmp_path / "out").exists()


def test_a_sealed_file_that_was_changed_is_refused(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt("--arms", "IT", "IM") == 0
    sealed = work_of(tmp_path) / "split" / "test.jsonl"
    sealed.write_text("".join(sealed.read_text().splitlines(keepends=True)[1:]))
    assert attempt("--arms", "IT", "IM") == 2
    assert f"{sealed} was changed since it was made" in capsys.readouterr().err


def test_a_budget_chooses_arms_once_and_never_fewer_than_five_seeds(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing but starting takes time: a run and its measurements are 12 s.
    jobs.rate = 1e9
    assert attempt("--budget", "4m", "--shown_responses", 0) == 0
    protocol = json.loads((folder_of(tmp_path) / "protocol.json").read_text())
    assert [arm["name"] for arm in protocol["arms"]] == ["IT", "IM", "reweighted-IT"]
    # A slower clock the next time chooses nothing anew.
    jobs.rate = 1.0
    assert attempt("--budget", "4m", "--shown_responses", 0) == 0
    assert len(list((tmp_path / "out").glob("*/protocol.json"))) == 1
    jobs.rate = 1e9
    # What is done already takes no time; with another rate nothing is.
    assert attempt("--budget", "1m", "--shown_responses", 0) == 0
    assert attempt("--budget", "1m", "--shown_responses", 0, "--learning_rate", "2e-4") == 2
    assert "cannot answer in 1m: IT and IM with 5 seeds take about 1.5 to 3 min" in capsys.readouterr().err
    assert attempt("--budget", "soon") == 2


def test_too_few_rows_end_before_any_model_is_loaded(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path, *({"prompt": user, "completion": answer} for user, answer in texts(20)))
    assert run_script(monkeypatch, "try_im", rows, "--model", make_tiny_model(tmp_path)) == 2
    assert "it takes 120" in capsys.readouterr().err and jobs.ran == []


def test_tuned_arms_are_chosen_on_validation_rows_and_tested_with_fresh_seeds(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.gains |= {"tuned-IT": 0.1, "tuned-IM": 0.1}
    for arm in ("tuned-IT", "tuned-IM"):
        jobs.gains |= {f"{arm}-trial{number}": 0.0 for number in range(1, 7)}
    jobs.gains |= {"tuned-IT-trial5": 0.3, "tuned-IM-trial2": 0.3}
    assert attempt("--arms", "IT", "IM", "--tune") == 2
    assert "13 validation rows are too few" in capsys.readouterr().err
    rows = write(tmp_path, *({"prompt": user, "completion": answer} for user, answer in texts(210)))
    assert rows.name == "data.jsonl" and attempt("--arms", "IT", "IM", "--tune") == 0
    folder = folder_of(tmp_path)
    chosen = json.loads((folder / "tuned.json").read_text())["arms"]
    assert chosen["tuned-IT"]["flags"] == ["--learning_rate", "0.0001", "--num_train_epochs", "6"]
    assert chosen["tuned-IM"]["flags"][:4] == ["--learning_rate", "0.0001", "--num_train_epochs", "3"]
    assert chosen["tuned-IM"]["flags"][4:] == ["--instruction_loss_weight", "0.3"]
    # A trial is measured on the validation rows alone, with a seed that nothing else has.
    trials = work_of(tmp_path) / "runs" / "tuning"
    assert len(list(trials.iterdir())) == 12 and not list(trials.glob("*/eval/test"))
    assert (work_of(tmp_path) / "split" / "train-seed1000.jsonl").exists()
    answer = answer_in(folder)
    third = answer["hypotheses"]["H3"]
    assert (third["arm"], third["reference"]) == ("tuned-IM", "tuned-IT")
    assert third["verdict"] == "no difference that matters"
    assert any(
        line.startswith("Where each has settings of its own, IM makes no") for line in answer["answer"]
    )
    # Both have the same passes and learning rates to choose from.
    protocol = json.loads((folder / "protocol.json").read_text())
    settings = [tuple(trial["flags"][:4]) for trial in protocol["trials"]]
    assert settings[:6] == settings[6:] and len(set(settings[:6])) == 6


SCORE = """
import json, sys
for line in open(sys.argv[1]):
    print(0.0 if json.loads(line)["response"].startswith("IM ") else 1.0)
"""


def test_a_score_of_ones_own_is_a_second_outcome_and_may_disagree(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tmp_path / "score.py"
    command.write_text(SCORE)
    given = ("--arms", "IT", "IM", "--task_score", f"{sys.executable} {command}")
    assert attempt(*given) == 0
    answer = answer_in(folder_of(tmp_path))
    assert answer["verdict"] == "helps" and answer["by_task_score"]["H1"]["verdict"] == "hurts"
    assert (
        answer["by_task_score"]["H1"]["mean_gain"] == -1.0 and answer["by_task_score"]["H1"]["margin"] == 0.02
    )
    assert any("The loss and the score disagree (by the loss: helps)" in line for line in answer["answer"])
    assert "By your score</h2>" in (folder_of(tmp_path) / "answer.html").read_text()
    assert "by your score, H1: IM against IT: -1.000" in capsys.readouterr().out
    # What is sure to matter by one and sure not to by the other is a disagreement too.
    command.write_text(SCORE.replace("0.0 if", "1.0 if"))
    assert attempt(*given) == 0
    assert any(
        "The loss and the score disagree" in line for line in answer_in(folder_of(tmp_path, 1))["answer"]
    )
    command.write_text("print('good')")
    capsys.readouterr()
    assert attempt(*given) == 2
    assert "it must be a finite number" in capsys.readouterr().err
