"""The comparison runner: what is done stays done, what changed is made again, a failure does not stop the
rest."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from script_loader import SRC
from tiny import make_tiny_model
from training_runs import run

from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison import timing
from instruction_modelling.comparison.begun import run_job
from instruction_modelling.comparison.jobs import Job, plan, report_job, run_jobs, waiting_jobs
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.precision import quickest_precision
from instruction_modelling.comparison.row_sets import TrainAndTest
from instruction_modelling.files.stamps import stamp_path
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.progress import TimeRange
from instruction_modelling.runs.pace import seconds_said


def options(tmp_path: Path, **changes: object) -> ComparisonOptions:
    rows = tmp_path / "mine.jsonl"
    if not rows.exists():
        rows.write_text(
            "".join(
                json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) + "\n" for i in range(20)
            )
        )
    given: dict[str, object] = {
        "model_name_or_path": str(tmp_path / "model"),
        "train_file": [str(rows)],
        "output_dir": str(tmp_path / "out"),
    }
    return ComparisonOptions(**{**given, **changes})  # type: ignore[arg-type]


def planned(tmp_path: Path, **changes: object) -> list[Job]:
    asked = options(tmp_path, **changes)
    folder = tmp_path / "set"
    test = Path(asked.test_file[0]) if asked.test_file else folder / "mine_test.jsonl"
    folder.mkdir(exist_ok=True)
    if not asked.test_file:
        test.write_text('{"prompt": "a", "completion": "b"}\n')
    return plan(asked, TrainAndTest(tmp_path / "mine.jsonl", test, folder))[0]


@pytest.mark.parametrize(
    ("processor", "gpu", "asked_for", "given"),
    [
        (False, None, None, "no"),
        (True, None, None, "bf16"),
        (False, None, "bf16", "bf16"),
        (True, None, "no", "no"),
        (False, True, None, "bf16"),
        (True, False, None, "no"),
    ],
)
def test_arms_are_trained_and_saved_in_bfloat16_only_where_it_is_multiplied_or_asked_for(  # noqa: PLR0913 (what decides)
    processor: bool,
    gpu: bool | None,
    asked_for: str | None,
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By whether the processor multiplies it, and whether the GPU does; None: there is none."""
    capabilities = {"avx512_f": True, "avx512_bf16": processor, "amx_bf16": False}
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu is not None)
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation or gpu
    )
    quickest_precision.cache_clear()
    trainings = [job for job in planned(tmp_path, mixed_precision=asked_for) if job.script == "finetune"]
    quickest_precision.cache_clear()
    flags = ("--mixed_precision", "--save_dtype")
    of_jobs = {tuple(job.arguments[job.arguments.index(flag) + 1] for flag in flags) for job in trainings}
    # What is measured is what products saw in training, which is what was trained.
    assert of_jobs == {(given, {"bf16": "bfloat16", "no": "float32"}[given])}


def finish(jobs: list[Job]) -> None:
    """Make the outputs of jobs, as if they had run."""
    for job in jobs:
        for path in job.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"made by {job.name} at {time.monotonic_ns()}")
        job.mark_done()


def script_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "script") -> Job:
    """Return a job whose script is this text."""
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(comparison_jobs, "SCRIPTS", tmp_path)
    return Job(name, name, [str(tmp_path)], [tmp_path / f"{name}.out"], [])


# -- what is done -------------------------------------------------------------------------------------------


def test_a_job_is_done_only_with_its_outputs_its_command_and_its_inputs(tmp_path: Path) -> None:
    source, made = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("a")
    job = Job("j", "script", ["--x", "1"], [made], [source])
    assert not job.done()
    job.mark_done()
    made.write_text("result")
    assert not job.done(), "an output without a stamp may be half-written or another's"
    job.mark_done()
    assert job.done()
    assert not Job("j", "script", ["--x", "2"], [made], [source]).done(), "another command"
    source.write_text("b")
    assert not job.done(), "another input"
    source.write_text("a")
    made.unlink()
    assert not job.done()


@pytest.mark.parametrize("flag", ["--chat_format", "--loss_patterns"])
def test_a_job_is_not_done_once_a_file_that_its_command_names_has_changed(tmp_path: Path, flag: str) -> None:
    named, made = tmp_path / "named", tmp_path / "out.txt"
    named.write_text("{{ messages }}")
    made.write_text("result")
    job = Job("j", "script", ["--x", "1", flag, str(named)], [made], [])
    job.mark_done()
    assert job.done()
    named.write_text("{{ messages[0] }}")
    assert not job.done()
    # A name that is no file stands for itself.
    assert "files" not in Job("j", "script", [flag, "tulu"], [made], []).made_from()


def test_a_trial_with_another_model_is_never_taken_for_a_real_run(tmp_path: Path) -> None:
    trial, real = (planned(tmp_path, model_name_or_path=str(tmp_path / name)) for name in ("tiny", "real"))
    assert [job.outputs for job in trial] == [job.outputs for job in real]
    finish(trial)
    assert not any(job.done() for job in real if str(tmp_path / "real") in job.arguments)
    assert waiting_jobs(trial) == [] and waiting_jobs(real) == real, "whatever they make is made anew"


def test_a_copy_of_the_model_is_the_same_model_and_a_tuned_one_another(tmp_path: Path) -> None:
    for name, weights in (("model", "w"), ("copy", "w"), ("tuned", "v")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(weights)
    finish(planned(tmp_path))
    assert waiting_jobs(planned(tmp_path, model_name_or_path=str(tmp_path / "copy"))) == []
    other = planned(tmp_path, model_name_or_path=str(tmp_path / "tuned"))
    assert waiting_jobs(other) == other
    (tmp_path / "model" / "model.safetensors").unlink()
    assert waiting_jobs(planned(tmp_path)) != []


def test_other_test_rows_redo_only_what_depends_on_them(tmp_path: Path) -> None:
    options(tmp_path)
    test = tmp_path / "test.jsonl"
    test.write_text('{"prompt": "a", "completion": "b"}\n')
    finish(planned(tmp_path, test_file=[str(test)]))
    test.write_text('{"prompt": "c", "completion": "d"}\n')
    waiting = waiting_jobs(planned(tmp_path, test_file=[str(test)]))
    assert len(waiting) == 3 * 4 and all(job.name.endswith("test rows") for job in waiting)


def test_what_is_trained_anew_is_measured_anew_in_the_same_call(tmp_path: Path) -> None:
    finish(planned(tmp_path))
    waiting = waiting_jobs(planned(tmp_path, learning_rate=1.0))
    assert len(waiting) == 2 * (1 + 8) and not any("base" in job.name for job in waiting)


def test_a_measured_model_may_lose_its_weights(tmp_path: Path) -> None:
    jobs = planned(tmp_path, keep_models=False)
    finish(jobs)
    weights = tmp_path / "set" / "IT-seed0" / "model.safetensors"
    weights.write_text("w")
    removal = next(job for job in jobs if job.script == "delete")
    with StopSignals() as stop:
        assert run_job(removal, stop) == 0
    removal.mark_done()
    assert not weights.exists() and waiting_jobs(jobs) == []


def test_a_model_without_weights_is_trained_again_where_it_has_still_to_be_measured(tmp_path: Path) -> None:
    jobs = planned(tmp_path, keep_models=False, arms=["IT"])
    finish(jobs)
    more = planned(tmp_path, keep_models=False, arms=["IT"], test_responses=5)
    waiting = [job.script for job in waiting_jobs(more) if "base" not in job.name]
    assert waiting[0] == "finetune" and waiting[-1] == "delete" and len(waiting) == 1 + 8 + 1
    kept = waiting_jobs(planned(tmp_path, arms=["IT"], test_responses=5))
    assert "finetune" in [job.script for job in kept], "as long as the weights are not there"
    scores = next(job for job in jobs if job.script == "compute_bleu" and "IT-seed0" in job.name)
    scores.outputs[0].unlink()
    assert [job.script for job in waiting_jobs(jobs)] == ["compute_bleu", "delete"], "needs no weights"


def test_a_job_that_is_stopped_is_not_done_by_the_command_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = script_job(tmp_path, monkeypatch, "")
    finish([job])
    other = replace(script_job(tmp_path, monkeypatch, "raise SystemExit(3)"), arguments=["--other"])
    with StopSignals() as stop:
        assert job.done() and run_job(other, stop) == 3
        assert job.done(), "the other command wrote nothing"
        writes = f"open('{job.outputs[0]}', 'w'); raise SystemExit(3)"
        assert run_job(replace(script_job(tmp_path, monkeypatch, writes), arguments=["--other"]), stop) == 3
    assert job.outputs[0].exists() and not job.done(), "the other command wrote half of it"


def test_files_whose_runs_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    for names in (["a/mine.jsonl", "b/mine.jsonl"], ["a/mine.jsonl", "b/mine_train.jsonl"]):
        assert ["same name" in problem for problem in options(tmp_path, train_file=names).check()] == [True]


# -- the plan -----------------------------------------------------------------------------------------------


def test_every_arm_and_seed_is_trained_once_and_measured_on_both_files(tmp_path: Path) -> None:
    asked = options(tmp_path, arms=["IT", "IM-w0.3"], seeds=[0, 7])
    rows = tmp_path / "mine.jsonl"
    jobs, runs = plan(asked, TrainAndTest(rows, rows, tmp_path / "out" / "mine"))
    trained = [job for job in jobs if job.script == "finetune"]
    assert [run.name for run in runs] == ["IT-seed0", "IM-w0.3-seed0", "IT-seed7", "IM-w0.3-seed7"]
    assert [job.arguments[-2:] for job in trained] == [
        ["--seed", "0"],
        ["--instruction_loss_weight", "0.3"],
        ["--seed", "7"],
        ["--instruction_loss_weight", "0.3"],
    ]
    for script in ("compute_loss", "generate", "compute_bleu", "score_responses"):
        assert sum(job.script == script for job in jobs) == 10


def test_rules_that_a_comparison_cannot_honour_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[cool]\nflags = []\nstop_at = { quantity = "kl", of = "IM-w0.3" }\n')
    assert options(tmp_path, arms=["IT", "cool", "others-beside"], arms_file=str(mine)).check() == [
        "--arms cool: has stop_at: its steps follow from runs of another arm, which are to be measured "
        f"first; src/try_im.py DATA --arms IT IM IM-w0.3 cool --arms_file {mine} runs it",
        "--arms others-beside: has data_transform: a comparison's report holds arms of the same rows side by "
        f"side; src/try_im.py DATA --arms IT IM others-beside --arms_file {mine} runs it",
    ]


def test_options_name_every_problem(tmp_path: Path) -> None:
    problems = options(tmp_path, arms=["IT", "nonsense"], test_file=["a", "b"]).check()
    assert len(problems) == 2 and "nonsense" in problems[0] and "2 files for 1" in problems[1]


def test_what_the_jobs_would_refuse_is_refused_before_any(tmp_path: Path) -> None:
    wrong: dict[str, object] = {"num_train_epochs": 0, "batch_size": -1, "train_losses": 0, "seeds": [0, -1]}
    problems = options(tmp_path, learning_rate=float("nan"), **wrong).check()
    assert sorted(problem.split()[0] for problem in problems) == [
        "--batch_size",
        "--learning_rate",
        "--num_train_epochs",
        "--seeds",
        "--train_losses",
    ]
    assert options(tmp_path, train_responses=0, test_responses=0).check() == []


@pytest.mark.parametrize("held_out", [True, False])
def test_the_report_is_told_of_the_files_that_were_trained_on(tmp_path: Path, held_out: bool) -> None:
    asked = options(tmp_path, weights_json=["weights.json"])
    trained = tmp_path / "mine_train.jsonl" if held_out else Path(asked.train_file[0])
    files = TrainAndTest(trained, tmp_path / "test.jsonl", tmp_path)
    arguments = report_job(asked, [tmp_path / "IT-seed0"], [files]).arguments
    assert arguments[arguments.index("--train_file") + 1] == str(trained)
    assert ("--weights_json" in arguments) is not held_out


# -- the work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"), [("", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_a_jobs_exit_code_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    with StopSignals() as stop:
        assert run_job(script_job(tmp_path, monkeypatch, text), stop) == code


def test_a_job_that_fails_does_not_stop_the_rest_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = script_job(tmp_path, monkeypatch, "raise SystemExit(3)", "bad")
    good = script_job(tmp_path, monkeypatch, "import sys; open(sys.argv[1] + '/good.out', 'w')", "good")
    with StopSignals() as stop:
        assert run_jobs([bad, good], stop) == ["bad (exit code 3)"]
    assert good.done() and not bad.done()


def test_what_needs_a_failed_jobs_output_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Training fails: its measurements and the removal of its weights wait; another arm goes on."""
    writes = "import sys; open(sys.argv[1] + '/{}.out', 'w')"
    trained = script_job(tmp_path, monkeypatch, "raise SystemExit(3)", "train")
    measured = replace(
        script_job(tmp_path, monkeypatch, writes.format("measure"), "measure"),
        inputs=[stamp_path(trained.outputs[0])],
    )
    scored = replace(
        script_job(tmp_path, monkeypatch, writes.format("score"), "score"), inputs=measured.outputs
    )
    other = script_job(tmp_path, monkeypatch, writes.format("other"), "other")
    with StopSignals() as stop, caplog.at_level("INFO"):
        failed = run_jobs([trained, measured, scored, other], stop)
    assert failed == ["train (exit code 3)"] and other.done()
    assert not measured.outputs[0].exists() and not scored.outputs[0].exists()
    assert caplog.text.count("not run, for it needs what failed: train") == 2


def test_weights_are_kept_until_everything_is_measured(tmp_path: Path) -> None:
    jobs = planned(tmp_path, keep_models=False, arms=["IT"])
    removal = next(job for job in jobs if job.script == "delete")
    measured = [path for job in jobs if "IT-seed0, " in job.name for path in job.outputs]
    assert len(measured) >= 8 and set(measured) <= set(removal.inputs)


def test_a_ctrl_c_ends_the_job_and_the_comparison(tmp_path: Path) -> None:
    """The job gets the signal once, though both may have been meant, and ends before the comparison does."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "first.py").write_text(
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "(folder / 'begun').touch()\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(0.3)\n"
        "    (folder / 'ended').touch()\n"
        "    sys.exit(130)\n"
    )
    program = f"""
import logging, sys
from pathlib import Path
from instruction_modelling.comparison import jobs
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.row_sets import TrainAndTest
from instruction_modelling.processes.signals import StopSignals
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
jobs.SCRIPTS = Path({str(tmp_path / "scripts")!r})
folder = {str(tmp_path)!r}
todo = [jobs.Job(name, name, [folder], [Path(folder, name)], []) for name in ("first", "next")]
with StopSignals() as stop:
    failed = jobs.run_jobs(todo, stop)
    sys.exit(128 + stop.received if stop.received else 0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and (tmp_path / "ended").exists()
    assert "[1/2] first" in out and "[2/2]" not in out and "the same command goes on" in out


# -- what it takes ------------------------------------------------------------------------------------------


def test_the_time_of_jobs_is_what_a_dry_run_says_of_the_first_that_trains(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    jobs = planned(tmp_path, mixed_precision="no", batch_size=2)
    (training, *_) = [job for job in jobs if job.script == "finetune"]
    calls: list[list[str]] = []

    def dry_run(command: list[str], stop: object) -> str:
        # The script's own process would import everything once more.
        calls.append(command)
        return run("finetune", *command[2:]).out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_MEASURED", {})
        patch.setattr(timing, "_output_of", dry_run)
        rate = timing.calibrate(jobs)
        assert timing.calibrate(jobs) == rate and len(calls) == 1
        assert timing.calibrate([job for job in jobs if job.script != "finetune"]) is None
        ((passes_a_second, start),) = timing._MEASURED.values()
        assert passes_a_second == rate and start > 0 and rate is not None
        assert timing.expected_seconds([training], rate) == training.passes / rate + start
        words = timing.cost_words([training], rate)
    assert calls[0] == [*training.command, "--dry_run"] and rate is not None
    said = run("finetune", *training.arguments, "--dry_run").out
    tokens, _ = re.findall(r"for ([\d,]+) tokens at ([\d,.]+) tokens a second", said)[0]
    # 20 rows of about 20 tokens, 3 passes: the job's own guess of its tokens makes no difference to its time.
    found = seconds_said(said)
    assert found is not None and int(tokens.replace(",", "")) > 1000
    assert 0.02 < training.passes / rate / found[0] < 50
    assert words.endswith(f" at {rate:,.0f} a second")
    assert not Path(training.outputs[0]).exists()


def job_of(script: str, passes: float) -> Job:
    return Job(script, script, [], [], [], passes=passes)


def both(times: TimeRange) -> tuple[float, float]:
    return times.least, times.most


def ends(times: TimeRange) -> object:
    return pytest.approx((times.least, times.most))


def test_the_time_left_goes_by_what_jobs_of_the_same_script_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 100 token-passes a second and 4 s to start; 600 passes are guessed to take 10 s."""
    monkeypatch.setattr(timing, "_MEASURED", {})
    times = timing.JobTimes(100.0)
    train, losses, scores = job_of("finetune", 600), job_of("compute_loss", 600), job_of("compute_bleu", 0)
    assert both(times.left([train, losses, scores])) == ends(timing.guessed_time(20.0))
    # Twice what was guessed: so others are guessed to take, too.
    times.note(train, 20.0)
    assert both(times.left([train])) == ends(TimeRange.around(20.0))
    assert both(times.left([losses, scores])) == ends(timing.guessed_time(20.0))
    assert both(times.left([job_of("finetune", 1600)])) == ends(TimeRange.around(40.0))
    # What costs no token-passes has no part in what is guessed of others.
    times.note(scores, 3.0)
    assert both(times.left([losses, scores])) == ends(timing.guessed_time(20.0) + TimeRange.around(3.0))
    times.note(losses, 5.0)
    left = times.left([train, losses, losses, scores])
    assert both(left) == ends(TimeRange.around(20.0) + TimeRange.around(5.0) * 2 + TimeRange.around(3.0))
