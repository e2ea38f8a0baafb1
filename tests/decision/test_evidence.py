"""What an answer is made of: copies count once, an arm that lacks rows or failed takes nothing from the
others, and no look is spent that nobody could read."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import try_im_jobs
from files_page import check_page
from row_files import write
from test_split import texts
from try_im_jobs import Jobs, Try, answer_in, folder_of, work_of

from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison.jobs import Job
from instruction_modelling.decision import look
from instruction_modelling.decision.crossed import crossed_mean
from instruction_modelling.decision.losses import matrix_of, units_of
from instruction_modelling.decision.tuning import choose, trials_of
from instruction_modelling.errors import UserError
from instruction_modelling.processes.signals import StopSignals

# The fixtures of this module.
jobs, attempt = try_im_jobs.jobs, try_im_jobs.attempt
TWO = ("--arms", "IT", "IM")


def losses_of(tmp_path: Path, arm: str) -> list[dict[int, float]]:
    found = []
    for seed in range(5):
        path = work_of(tmp_path) / "runs" / f"{arm}-seed{seed}" / "eval" / "test" / "losses.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found.append({line["row"]: line["nll"]["response"] for line in lines})
    return found


def changed_rule(jobs: Jobs, attempt: Try, tmp_path: Path) -> Path:
    """Answers with an arm `few` of a rule, and gives the file in which it has another one now."""
    arms = tmp_path / "mine.toml"
    jobs.gains["few"] = 0.0
    arms.write_text("[few]\nflags = []\nselect = { rows = 7 }\n")
    assert attempt(*TWO, "few", "--arms_file", arms) == 0
    arms.write_text("[few]\nflags = []\nselect = { rows = 9 }\n")
    return arms


def test_rows_that_say_nearly_the_same_are_one_unit() -> None:
    losses = [{0: 1.0, 1: 2.0, 2: 4.0, 5: 7.0}, {0: 3.0, 1: 2.0, 2: 0.0, 3: 9.0, 5: 1.0}]
    units = units_of(losses, [[1, 3, 5], [8, 9]])
    assert units == [[0], [1, 5], [2]] and units_of(losses) == [[0], [1], [2], [5]]
    assert matrix_of(losses, units).tolist() == [[1.0, 4.5, 4.0], [3.0, 1.5, 0.0]]


def test_copies_of_a_row_make_no_interval_narrower(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = texts(220)
    rows = ({"prompt": user, "completion": answer} for user, answer in [*pairs, *pairs[:50]])
    write(tmp_path, *rows)
    assert attempt(*TWO) == 0
    answer = answer_in(folder_of(tmp_path))
    check_page("## An answer: `src/try_im.py`", [answer])
    split = work_of(tmp_path) / "split"
    alike = [json.loads(line)["rows"] for line in (split / "test_alike.jsonl").read_text().splitlines()]
    test = [json.loads(line) for line in (split / "test.jsonl").read_text().splitlines()]
    test = [{name: value for name, value in row.items() if name != "id"} for row in test]
    assert alike and all(test[first] == test[second] for first, second in alike)
    assert answer["test_rows"] == len(test) == 90 and answer["distinct_test_rows"] == 90 - len(alike)
    second = {row for _, row in alike}
    by_hand = []
    for of_it, of_im in zip(losses_of(tmp_path, "IT"), losses_of(tmp_path, "IM"), strict=True):
        gains = {row: of_it[row] - of_im[row] for row in of_it}
        gains |= {first: (gains[first] + gains[other]) / 2 for first, other in alike}
        by_hand.append([gain for row, gain in gains.items() if row not in second])
    first = answer["hypotheses"]["H1"]
    expected = crossed_mean(np.array(by_hand)).interval(first["confidence"])
    assert (first["low"], first["high"]) == pytest.approx(expected)
    said = capsys.readouterr().out
    assert f"90 test rows, of which {90 - len(alike)} differ from each other)" in said


def test_an_arm_without_some_losses_takes_no_rows_from_what_is_confirmed(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    assert attempt(*TWO) == 0
    before = answer_in(folder_of(tmp_path))["hypotheses"]["H1"]
    jobs.lost |= {"IM-w0.1": set(range(10)), "IM-w0.3": set(range(42))}
    jobs.gains["IM-w0.3"] = 0.0
    assert attempt(*TWO, "IM-w0.1", "IM-w0.3") == 0
    answer = answer_in(folder_of(tmp_path, 1))
    assert answer["hypotheses"]["H1"] == before and answer["test_rows"] == 43
    assert answer["test_rows_of_arms"] == {"IM-w0.1": 33}
    assert answer["against_IT"]["IM-w0.1"]["variance"]["rows"] == 33
    why = "fewer than 2 test rows have a loss under it, IT and IM"
    assert answer["not_measured"] == {"IM-w0.3": why}
    line = "IM-w0.1 could be measured on only 33 of the 43 test rows, and is compared on those."
    assert line in answer["answer"]


def test_rows_that_nobody_has_a_loss_of_are_said(jobs: Jobs, attempt: Try, tmp_path: Path) -> None:
    jobs.lost = {arm: {3} for arm in ("IT", "IM", "base")}
    assert attempt(*TWO) == 0
    answer = answer_in(folder_of(tmp_path))
    assert (answer["test_rows"], answer["test_rows_not_measured"]) == (42, 1)
    assert any(line.startswith("Of 43 test rows 1 cannot be counted") for line in answer["answer"])


def test_an_answer_takes_rows_that_it_im_and_the_untuned_model_share(
    jobs: Jobs, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.lost = {"IM": set(range(20)), "base": set(range(20, 43))}
    assert attempt(*TWO) == 2
    assert "nothing can be said without the untuned model: fewer than 2 test rows" in capsys.readouterr().err


def test_an_exploratory_arm_that_fails_is_named_and_the_others_answer(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.failing = {"train IM-w0.1, seed 3"}
    assert attempt(*TWO, "IM-w0.1") == 2
    said = capsys.readouterr()
    assert "these jobs failed" in said.err and "train IM-w0.1, seed 3 (exit code 1)" in said.err
    answer = answer_in(folder_of(tmp_path))
    assert answer["verdict"] == "helps" and "IM-w0.1" not in answer["against_IT"]
    assert answer["not_measured"]["IM-w0.1"].startswith("its losses on test rows were not measured, seed 3")
    assert answer["not_measured"]["IM-w0.1"] in (folder_of(tmp_path) / "answer.html").read_text()
    jobs.failing.clear()
    assert attempt(*TWO, "IM-w0.1") == 0
    answer = answer_in(folder_of(tmp_path))
    assert answer["not_measured"] == {} and "IM-w0.1" in answer["against_IT"]
    # Without what is confirmed there is nothing to say.
    jobs.failing = {"train IM, seed 2"}
    assert attempt(*TWO, "--learning_rate", "2e-4") == 2
    assert not (folder_of(tmp_path, 1) / "answer.json").exists()


def test_what_another_rule_has_measured_is_not_reported_where_the_new_one_fails(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    arms = changed_rule(jobs, attempt, tmp_path)
    jobs.failing = {"train few, seed 3"}
    assert attempt(*TWO, "few", "--arms_file", arms) == 2
    answer = answer_in(folder_of(tmp_path, 1))
    assert "few" not in answer["against_IT"] and "seed 3" in answer["not_measured"]["few"]


def test_a_training_that_fails_at_once_leaves_nothing_of_the_run_before_it_to_report(
    jobs: Jobs, attempt: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused flag, say: the run folder is as it was, and so is what says that it is made."""
    arms = changed_rule(jobs, attempt, tmp_path)

    def run(job: Job, stop: StopSignals, start: object = None) -> int:
        return 1 if job.script == "finetune" else jobs.run(job, stop)

    monkeypatch.setattr(comparison_jobs, "run_job", run)
    assert attempt(*TWO, "few", "--arms_file", arms, "--shown_responses", 3) == 2
    answer = answer_in(folder_of(tmp_path, 1))
    assert "few" not in answer["against_IT"] and answer["verdict"] == "helps"
    assert "few says" not in (folder_of(tmp_path, 1) / "answer.html").read_text()


def test_where_all_settings_fail_the_question_without_settings_is_answered(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, *({"prompt": user, "completion": answer} for user, answer in texts(210)))
    jobs.gains |= {f"tuned-{arm}-trial{number}": 0.1 for arm in ("IT", "IM") for number in range(1, 7)}
    jobs.gains |= {"tuned-IT": 0.1, "tuned-IM": 0.3}
    every = {f"train tuned-IM-trial{number}, seed 1000" for number in range(1, 7)}
    jobs.failing = set(every)
    assert attempt(*TWO, "--tune") == 2
    answer = answer_in(folder_of(tmp_path))
    assert list(answer["hypotheses"]) == ["H1"] and answer["tuned_settings"] == {}
    assert not any(name.startswith("train tuned-IT, seed") for name in jobs.ran)
    assert "Take this look again, once the cause of what failed" in capsys.readouterr().out
    # Of settings that diverged the others are chosen from.
    jobs.failing = every - {"train tuned-IM-trial4, seed 1000"}
    assert attempt(*TWO, "--tune") == 2
    answer = answer_in(folder_of(tmp_path))
    assert list(answer["hypotheses"]) == ["H1", "H3"]
    assert answer["tuned_settings"]["tuned-IM"][-1] == "0.1"


def test_a_look_in_which_something_failed_is_taken_again_by_the_same_command(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    assert attempt(*TWO, "IM-w0.1") == 0
    jobs.failing = {"train IM-w0.1, seed 6"}
    assert attempt(*TWO, "IM-w0.1", "--next_look") == 2
    # It was read, so it is noted; what it said of the question stays, and no look is skipped.
    answer = answer_in(folder_of(tmp_path))
    assert answer["seeds"] == 8 and answer["looks"][1]["is_whole"] is False
    assert attempt(*TWO, "IM-w0.1") == 2 and answer_in(folder_of(tmp_path))["seeds"] == 8
    assert "--next_look" not in answer_in(folder_of(tmp_path))["next"][0][1]
    jobs.failing.clear()
    assert attempt(*TWO, "IM-w0.1", "--next_look") == 0
    read = answer["looks"][1]["verdicts"]
    answer = answer_in(folder_of(tmp_path))
    assert answer["seeds"] == 8 and answer["not_measured"] == {}
    assert answer["looks"][1] == {"seeds": 8, "verdicts": read} and len(answer["looks"]) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("trial of IT-matched-loss, seed 2", "its trial run with seed 2 was not measured"),
        ("losses of runs IT-matched-loss-seed2, train rows", "how far it got with seed 2 was not measured"),
    ],
)
def test_an_arm_whose_trial_failed_is_left_out_and_no_other(
    jobs: Jobs, attempt: Try, tmp_path: Path, name: str, says: str
) -> None:
    jobs.gains |= {"IT-matched-KL": 0.0, "IT-matched-loss": 0.0}
    jobs.distances = {"IM": 0.31, "IT-matched-KL": 0.3}
    # The stand-in's losses are of 3 nats.
    steps = range(1, 9)
    jobs.trial = {
        "IT-matched-KL": [{"step": step, "eval_kl": 0.05 * step} for step in steps],
        "IT-matched-loss": [{"step": step, "eval_response_nll": 5.0 - step} for step in steps],
    }
    jobs.failing = {name}
    assert attempt(*TWO, "IT-matched-KL", "IT-matched-loss") == 2
    assert jobs.ran.count(name) == 1
    answer = answer_in(folder_of(tmp_path))
    assert answer["verdict"] == "helps" and list(answer["matched"]) == ["IT-matched-KL"]
    assert answer["not_measured"]["IT-matched-loss"].startswith(says)
    jobs.failing.clear()
    assert attempt(*TWO, "IT-matched-KL", "IT-matched-loss") == 0
    assert list(answer_in(folder_of(tmp_path))["matched"]) == ["IT-matched-KL", "IT-matched-loss"]


def test_a_control_that_fails_takes_its_own_question_away_alone(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    jobs.failing = {"train reweighted-IT, seed 1", "losses of runs IM-seed0, validation rows"}
    assert attempt(*TWO, "reweighted-IT") == 2
    answer = answer_in(folder_of(tmp_path))
    assert list(answer["hypotheses"]) == ["H1"] and answer["verdict"] == "helps"
    # Two were asked, at three looks.
    p_value = answer["hypotheses"]["H1"]["p_value"]
    assert answer["holm_p_values"] == {"H1": pytest.approx(min(1.0, 6 * p_value))}
    assert any(line.startswith("reweighted-IT: its losses on test rows") for line in answer["answer"])


def test_a_score_without_its_responses_is_left_out(jobs: Jobs, attempt: Try, tmp_path: Path) -> None:
    command = tmp_path / "score.py"
    command.write_text("import sys\nfor _ in open(sys.argv[1]): print(1.0)")
    jobs.failing = {"responses of runs IM-seed3, test rows"}
    assert attempt(*TWO, "--task_score", f"{sys.executable} {command}") == 2
    answer = answer_in(folder_of(tmp_path))
    assert answer["verdict"] == "helps" and answer["by_task_score"] == {}
    assert answer["not_measured"]["--task_score"].startswith("the responses of IM, seed 3, were not made")
    jobs.failing = {"responses of runs reweighted-IT-seed3, test rows"}
    assert attempt(*TWO, "reweighted-IT", "--task_score", f"{sys.executable} {command}") == 2
    answer = answer_in(folder_of(tmp_path, 1))
    assert list(answer["by_task_score"]) == ["H1"] and list(answer["hypotheses"]) == ["H1", "H2"]


def test_settings_that_all_diverged_are_refused_and_one_that_did_is_not_chosen() -> None:
    trials = trials_of(1e-4, 3)
    losses = {trial.name: 2.0 + trial.number for trial in trials}
    losses |= {"tuned-IT-trial1": float("nan")}
    assert {arm: trial.number for arm, trial in choose(trials, losses).items()} == {
        "tuned-IT": 2,
        "tuned-IM": 1,
    }
    losses |= {trial.name: float("nan") for trial in trials if trial.arm == "tuned-IM"}
    with pytest.raises(UserError, match="no setting of tuned-IM has a validation loss that is a number"):
        choose(trials, losses)


def test_a_loss_that_is_no_number_is_no_traceback(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.no_number = {"IM-w0.1"}
    assert attempt(*TWO, "IM-w0.1") == 0
    why = answer_in(folder_of(tmp_path))["not_measured"]["IM-w0.1"]
    assert why.startswith("the loss of test row 0 is no number (") and "diverged" in why
    jobs.no_number = {"IM"}
    assert attempt(*TWO, "--learning_rate", "2e-4") == 2
    assert "nothing can be said without IM: the loss of test row 0 is no number" in capsys.readouterr().err


def test_other_texts_to_look_at_train_nothing_anew(jobs: Jobs, attempt: Try, tmp_path: Path) -> None:
    assert attempt(*TWO, "--shown_responses", 1) == 0
    jobs.ran.clear()
    note = "Some models have fewer than"
    assert note not in (folder_of(tmp_path) / "answer.html").read_text()
    assert attempt(*TWO, "--shown_responses", 60, "--max_new_tokens", 16) == 0
    assert not [name for name in jobs.ran if not name.startswith("delete")]
    # 43 rows are tested on; the stand-in writes 40 of them.
    assert f"{note} 43 responses" in (folder_of(tmp_path) / "answer.html").read_text()


def test_a_look_that_nobody_could_read_is_not_spent(
    jobs: Jobs, attempt: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attempt(*TWO) == 0
    with monkeypatch.context() as patched:

        def full(*_: object) -> str:
            raise OSError(28, "No space left on device")

        patched.setattr(look, "answer_page", full)
        with pytest.raises(OSError, match="No space"):
            attempt(*TWO, "--next_look")
    assert answer_in(folder_of(tmp_path))["seeds"] == 5
    assert attempt(*TWO, "--next_look") == 0
    answer = answer_in(folder_of(tmp_path))
    assert answer["seeds"] == 8 and [one["seeds"] for one in answer["looks"]] == [5, 8]


@pytest.mark.parametrize(
    ("gain", "noise", "control", "says"),
    [
        (0.2, 0.01, 0.2, "What IM does is explained by reweighting"),
        (0.01, 0.01, 0.01, "Against reweighting alone, too, IM makes no difference that matters"),
        (0.2, 0.01, 0.0, "What IM does is not explained by reweighting"),
        (0.01, 0.01, -0.2, "IM is better than reweighting alone (against IT see the first line)"),
        (0.01, 0.01, 0.3, "Reweighting alone does better"),
    ],
)
def test_the_control_explains_no_effect_that_was_not_shown(  # noqa: PLR0913 (fixtures, and a case)
    jobs: Jobs, attempt: Try, tmp_path: Path, gain: float, noise: float, control: float, says: str
) -> None:
    jobs.noise, jobs.gains["IM"], jobs.gains["reweighted-IT"] = noise, gain, control
    assert attempt(*TWO, "reweighted-IT") == 0
    assert answer_in(folder_of(tmp_path))["answer"][2].startswith(says)


def test_the_table_confirms_nothing_but_im_against_it_and_names_what_is_open(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.noise, jobs.gains["IM"], jobs.gains["reweighted-IT"] = 0.4, 1.0, 1.05
    assert attempt(*TWO, "reweighted-IT", "IM-w0.1") == 0
    page = (folder_of(tmp_path) / "answer.html").read_text()
    kinds = dict(
        re.findall(r'<th scope="row">([^<]+)</th>(?:<td[^>]*>[^<]*</td>){3}<td[^>]*>([^<]*)</td>', page)
    )
    assert kinds["IM"] == "confirmed" and kinds["reweighted-IT"] == "control, exploratory"
    assert kinds["IM-w0.1"] == "exploratory" and kinds["IT"] == ""
    assert "Go on with more seeds (IM against reweighted-IT cannot be told yet)" in capsys.readouterr().out
    assert "for other data of this kind the interval of IM against IT may be as wide as ±" in page


def test_options_that_go_with_another_are_refused_without_it(
    jobs: Jobs, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(*TWO, "--task_margin", "0.1") == 2
    assert "--task_margin: is the margin of a score, and no --task_score" in capsys.readouterr().err
    # A command is tried before what it costs is said, too.
    assert attempt(*TWO, "--task_score", "/absent", "--dry_run") == 2
    assert "/absent" in capsys.readouterr().err


def test_rows_that_cannot_be_used_are_told_with_their_reasons(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, *({"prompt": user, "completion": ""} for user, _ in texts(130)))
    assert attempt(*TWO, "--max_bad_rows", 130) == 2
    said = capsys.readouterr().err
    assert "it takes 120" in said and "130 rows left out: " in said


def test_rows_of_another_kind_may_have_our_columns(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, pairs in (
        ("data", texts(130)),
        ("other", [(f"{u} else", f"{a} else") for u, a in texts(400)[200:]]),
    ):
        write(tmp_path, *({"q": user, "a": answer} for user, answer in pairs), name=f"{name}.jsonl")
    given = ("--columns", "q=user,a=assistant", "--out_of_domain", tmp_path / "other.jsonl")
    assert attempt(*TWO, *given) == 0
    assert "Out of domain, on other" in "".join(answer_in(folder_of(tmp_path))["answer"])
