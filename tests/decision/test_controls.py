"""Arms with rows of their own, with an end of their own, and rows of another kind: what is trained, measured
and said of them, and what is refused."""

import itertools
import json
from pathlib import Path

import pytest
import try_im_jobs
from files_page import check_page
from row_files import write
from test_split import texts
from training_runs import run
from try_im_jobs import Jobs, Try, answer_in, folder_of, work_of

from instruction_modelling.arms.rules import StopAt
from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison import timing
from instruction_modelling.comparison.jobs import DELETE_WEIGHTS, Job
from instruction_modelling.decision import look
from instruction_modelling.decision.matching import measured_every, steps_to
from instruction_modelling.decision.options import TryOptions
from instruction_modelling.decision.protocol import shared_flags
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.rows.json_lines import read_appended

# The fixtures of this module.
jobs, attempt = try_im_jobs.jobs, try_im_jobs.attempt
CONTROLS = ("permuted-beside", "others-beside", "unrelated-beside", "healed-base")


def flags_of(jobs: Jobs, name: str) -> dict[str, str]:
    """The options of one training job that have a value."""
    words = jobs.trained[name]
    pairs = itertools.pairwise(words)
    return {word: value for word, value in pairs if word.startswith("--") and not value.startswith("--")}


def test_controls_train_on_rows_of_their_own_and_im_is_held_against_them(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    jobs.gains |= dict.fromkeys(CONTROLS, 0.05) | {"healed-base": -0.2}
    assert attempt("--arms", "IT", "IM", *CONTROLS) == 0
    folder = folder_of(tmp_path)
    answer = answer_in(folder)
    check_page("## An answer: `src/try_im.py`", [answer])
    gains = {name: one["mean_gain"] for name, one in answer["against_controls"].items()}
    assert gains == pytest.approx(dict.fromkeys(CONTROLS, 0.15) | {"healed-base": 0.4}, abs=0.02)
    assert any(
        line.startswith("IM is better than the untuned model after as many steps on unrelated text: ")
        for line in answer["answer"]
    )
    # Arms without flags are not arms between IT and IM: no weight is chosen among them.
    assert answer["chosen_weight"] is None
    split = work_of(tmp_path) / "split"
    ours = [json.loads(line) for line in (split / "train-seed2.jsonl").read_text().splitlines()]
    pool = [json.loads(line) for line in (split / "pool.jsonl").read_text().splitlines()]
    given = flags_of(jobs, "train others-beside, seed 2")
    assert given["--train_file"] == str(split / "train-others-beside-seed2.jsonl")
    rows = [json.loads(line) for line in Path(given["--train_file"]).read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in ours]
    trained, asked = ({row["prompt"] for row in part} for part in (ours, pool))
    beside = {text for row in rows for text in row["text_beside"].split("\n\n")}
    assert beside <= asked - trained and len(beside) > 5
    # Every other arm of a seed has the rows that all share.
    assert flags_of(jobs, "train IM, seed 2")["--train_file"] == str(split / "train-seed2.jsonl")
    page = (folder / "answer.html").read_text()
    assert "unrelated-text-beside" in page and "permuted-beside" in page
    # It is all there: nothing is run again.
    count = len(jobs.ran)
    assert attempt("--arms", "IT", "IM", *CONTROLS) == 0 and len(jobs.ran) == count


def test_an_arm_may_select_rows(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = tmp_path / "mine.toml"
    arms.write_text(
        "[few]\nflags = []\nselect = { rows = 7 }\n[none]\nflags = []\nselect = { ratio_at_least = 900 }\n"
    )
    jobs.gains["few"] = 0.0
    given = ("--arms", "IT", "IM", "few", "--arms_file", arms)
    assert attempt(*given) == 0
    folder = folder_of(tmp_path)
    assert len((work_of(tmp_path) / "split" / "train-few-seed0.jsonl").read_text().splitlines()) == 7
    protocol = json.loads((folder / "protocol.json").read_text())
    assert protocol["arms"][-1] == {"name": "few", "flags": [], "select": {"rows": 7}}
    # Another rule is another protocol.
    arms.write_text(arms.read_text().replace("rows = 7", "rows = 8"))
    capsys.readouterr()
    assert attempt(*given, "--status") == 0
    said = capsys.readouterr().out
    assert "few: no flag of its own; select rows=8" in said
    other = f"not gone on with: protocol {folder.name}, which differs in arms; 1 look taken of it"
    assert other in said and not said.startswith(f"protocol {folder.name}")
    assert attempt("--arms", "none", "--arms_file", arms) == 2
    assert "--arms none, seed 0: select leaves 0 of 37 rows" in capsys.readouterr().err


def test_instructions_of_others_need_rows_kept_out(
    jobs: Jobs, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt("--arms", "others-beside", "--train_rows", 74) == 2
    assert "no rows are kept out of training; give fewer --train_rows" in capsys.readouterr().err
    assert jobs.ran == []


# -- arms that stop where another one ends ------------------------------------------------------------------


def test_an_arm_is_trained_anew_for_the_steps_in_which_it_gets_as_far(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    jobs.gains |= {"IT-matched-KL": 0.0, "IT-matched-loss": 0.0}
    jobs.distances |= {"IM": 0.31, "IT-matched-KL": 0.29}
    jobs.trial["IT-matched-KL"] = [
        {"step": s, "eval_kl": s / 20, "eval_response_nll": 9.0} for s in (2, 4, 6, 8)
    ]
    # Training rows' loss is about 3 - 0.2 under IM.
    jobs.trial["IT-matched-loss"] = [{"step": s, "eval_response_nll": 4.0 - s / 4} for s in (2, 4, 6, 8)]
    names = ("IT", "IM", "IT-matched-KL", "IT-matched-loss")
    assert attempt("--arms", *names) == 0
    folder = folder_of(tmp_path)
    answer = answer_in(folder)
    check_page("## An answer: `src/try_im.py`", [answer])
    of_kl, of_loss = (answer["matched"][name] for name in names[2:])
    # 0.31 is passed at step 8 (0.3 at step 6 is not as far).
    assert of_kl["steps"] == [8] * 5 and of_kl["targets"] == [0.31] * 5
    assert of_kl["reached"] == pytest.approx([0.29] * 5) and of_kl["quantity"] == "kl"
    means = of_loss["targets"]
    assert all(2.0 < mean < 3.2 for mean in means)
    assert of_loss["steps"] == [next(s for s in (2, 4, 6, 8) if 4.0 - s / 4 <= mean) for mean in means]
    refit = flags_of(jobs, "train IT-matched-KL, seed 3")
    assert refit["--max_train_steps"] == "8" and "--eval_file" not in refit
    trial = flags_of(jobs, "trial of IT-matched-KL, seed 3")
    # 37 rows, 8 a step, 3 epochs: 15 steps, each measured.
    assert (
        trial["--eval_file"] == str(work_of(tmp_path) / "split" / "validation.jsonl")
        and trial["--eval_steps"] == "1"
    )
    assert "--max_train_steps" not in trial and "--eval_kl" in jobs.trained["trial of IT-matched-KL, seed 3"]
    loss_trial = flags_of(jobs, "trial of IT-matched-loss, seed 3")
    assert loss_trial["--eval_file"] == str(work_of(tmp_path) / "split" / "train-seed3.jsonl")
    # IM is measured before it is gone by, and its weights are deleted after that.
    order = jobs.ran
    assert order.index("train IM, seed 0") < order.index("trial of IT-matched-KL, seed 0")
    assert order.index("trial of IT-matched-KL, seed 4") < order.index("train IT-matched-KL, seed 0")
    assert order.count("train IM, seed 0") == 1
    deleted = next(n for n, name in enumerate(order) if name.startswith("delete") and "IM-seed0" in name)
    measured = [n for n, name in enumerate(order) if name.startswith("losses") and "IM-seed0" in name]
    assert len(measured) == 3 and max(measured) < deleted
    count = len(order)
    assert attempt("--arms", *names) == 0 and len(jobs.ran) == count
    # Who asks for less finds it measured.
    assert attempt("--arms", "IT", "IM") == 0
    assert all(name.startswith("delete") for name in jobs.ran[count:])


def test_what_never_gets_as_far_is_said_and_not_trained(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.distances["IM"] = 0.5
    jobs.trial["IT-matched-KL"] = [{"step": s, "eval_kl": s / 20} for s in (2, 4, 6)]
    assert attempt("--arms", "IT", "IM", "IT-matched-KL") == 0
    words = (
        "not reachable with 5 of 5 seeds: IM ends at a KL from the untuned model of 0.500 (seed 0), and the "
        "trial comes to 0.300"
    )
    answer = answer_in(folder_of(tmp_path))
    assert answer["not_reached"] == {"IT-matched-KL": words} and answer["matched"] == {}
    assert f"IT-matched-KL: {words}." in answer["answer"] and "IT-matched-KL" not in answer["mean_test_loss"]
    assert words in capsys.readouterr().out and "train IT-matched-KL, seed 0" not in jobs.ran
    assert words in (folder_of(tmp_path) / "answer.html").read_text()


def test_the_arm_that_is_gone_by_stands_first(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = tmp_path / "mine.toml"
    arms.write_text('[as-hot]\nflags = []\nstop_at = { quantity = "kl", of = "IM-w0.3" }\n')
    for names in (["as-hot"], ["as-hot", "IM-w0.3"]):
        assert attempt("--arms", "IT", "IM", *names, "--arms_file", arms) == 2
        said = capsys.readouterr().err
        assert (
            "--arms as-hot: stops where IM-w0.3 ends, so IM-w0.3 is to stand before it among --arms" in said
        )
    assert jobs.ran == []


def test_the_first_step_that_is_as_far_counts() -> None:
    trial = [(2, 0.1), (4, 0.3), (6, 0.2), (8, 0.5)]
    assert [steps_to(target, trial, "kl") for target in (0.05, 0.3, 0.31, 0.6)] == [2, 4, 8, None]
    assert [steps_to(target, trial, "loss") for target in (0.05, 0.2, 0.1)] == [None, 2, 2]
    assert [measured_every(StopAt("kl", "IM"), steps) for steps in (1, 20, 21, 400)] == [1, 1, 2, 20]
    assert measured_every(StopAt("kl", "IM", 7), 400) == 7


# -- beyond one's own rows, and the optimiser's defaults ----------------------------------------------------


def test_rows_of_another_kind_are_measured_beside_and_near_duplicates_left_out(
    jobs: Jobs, attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [(f"{user} Elsewhere, {user[::-1]}?", f"{answer} {answer[::-1]}") for user, answer in texts(60)]
    rows = [*others, *texts(130)[:5]]
    file = write(tmp_path, *({"prompt": u, "completion": a} for u, a in rows), name="elsewhere.jsonl")
    assert attempt("--arms", "IT", "IM", "--out_of_domain", file) == 0
    folder = folder_of(tmp_path)
    answer, protocol = answer_in(folder), json.loads((folder / "protocol.json").read_text())
    check_page("## An answer: `src/try_im.py`", [answer])
    facts = protocol["out_of_domain"]
    assert (facts["data"], facts["rows"], facts["too_like_ours"]) == ("elsewhere", 60, 5)
    assert len((work_of(tmp_path) / "split" / "out_of_domain.jsonl").read_text().splitlines()) == 60
    assert answer["out_of_domain"]["IM"]["mean_gain"] == pytest.approx(0.2, abs=0.02)
    assert set(answer["mean_out_of_domain_loss"]) == {"IT", "IM", "base"}
    assert any(
        line.startswith("Out of domain, on elsewhere: the test loss of IM is ") for line in answer["answer"]
    )
    assert "Out of domain" in (folder / "answer.html").read_text()
    few = write(tmp_path, *({"prompt": u, "completion": a} for u, a in rows[30:]), name="few.jsonl")
    capsys.readouterr()
    assert attempt("--arms", "IT", "IM", "--out_of_domain", few) == 2
    assert "30 of 35 usable rows say something else than the rows of" in capsys.readouterr().err


def test_the_optimisers_defaults_are_a_protocol_of_their_own() -> None:
    without = ("--clip_grad_norm", "-1", "--adam_epsilon", "1e-08")
    plain, clipped = (shared_flags(TryOptions(["rows"], with_clipping=asked)) for asked in (False, True))
    assert plain == clipped + without


def test_a_protocol_that_asks_for_none_is_what_it_was(jobs: Jobs, attempt: Try, tmp_path: Path) -> None:
    assert attempt("--arms", "IT", "IM") == 0
    protocol = json.loads((folder_of(tmp_path) / "protocol.json").read_text())
    assert not {"rules", "out_of_domain"} & set(protocol)
    assert protocol["arms"] == [{"name": "IT", "flags": []}, {"name": "IM", "flags": ["--use_lm_loss"]}]


@pytest.mark.slow
def test_a_matched_arm_by_the_scripts_themselves(
    attempt: Try, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two seeds, every job for real: the target is what IM's own model measures, and the arm trained anew has
    as many steps as the trial took to get there."""

    def run_here(job: Job, stop: StopSignals, start: object = None) -> int:
        if job.script == DELETE_WEIGHTS:
            return run_job(job, stop)
        outcome = run(job.script, *job.arguments)
        assert outcome.code == 0, f"{job.name}: {outcome.err}"
        job.mark_done()
        return outcome.code

    run_job = comparison_jobs.run_job
    monkeypatch.setattr(comparison_jobs, "run_job", run_here)
    monkeypatch.setattr(timing, "calibrate", lambda jobs, stop=None: 1e6)
    monkeypatch.setattr(look, "next_seeds", lambda *given: 2)
    names = ("IT", "IM", "permuted-beside", "healed-base", "IT-matched-KL", "IT-matched-loss")
    assert attempt("--arms", *names, "--learning_rate", "1e-3", "--shown_responses", 0) in (0, 3)
    folder = folder_of(tmp_path)
    answer = answer_in(folder)
    assert set(answer["matched"]) | set(answer["not_reached"]) == {"IT-matched-KL", "IT-matched-loss"}
    for arm, matched in answer["matched"].items():
        record = json.loads((work_of(tmp_path) / "runs" / f"{arm}-seed0" / "run.json").read_text())
        assert record["steps"] == matched["steps"][0] > 0
        assert matched["reached"][0] == pytest.approx(matched["targets"][0], rel=0.5)
    rows = read_appended(
        work_of(tmp_path) / "runs" / "IM-seed0" / "eval" / "validation" / "losses.jsonl"
    ).records
    mean = sum(line["kl"]["response"] for _, line in rows) / len(rows)
    match, *_ = json.loads((folder / "matching.json").read_text())["matches"]
    assert (match["arm"], match["seed"]) == ("IT-matched-KL", 0) and match["target"] == pytest.approx(mean)
    assert not list((work_of(tmp_path) / "runs").rglob("*.safetensors"))
