"""A whole study, its models made in the test's process: what it runs, costs, writes and goes on with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from files_page import check_page
from script_loader import run_script
from tiny import make_tiny_model
from training_runs import write_rows

from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison import timing
from instruction_modelling.comparison.jobs import Job
from instruction_modelling.memorisation.options import ProbeOptions
from instruction_modelling.memorisation.probe import probe
from instruction_modelling.processes.signals import StopSignals


class Jobs:
    """Stands for the scripts: a tuned model is a tiny one of another seed, and it is really measured."""

    def __init__(self, models: dict[str, Path]):
        self.models, self.ran, self.failing = models, list[str](), ""

    def run(self, job: Job, stop: StopSignals, start: object = None) -> int:
        job.forget()
        self.ran.append(job.name)
        if job.name == self.failing:
            return 1
        given = dict(zip(job.arguments[::2], job.arguments[1::2], strict=False))
        if job.script == "finetune":
            assert job.arguments[:2] == ["--packing", "--overwrite_output"]
            run = job.outputs[0].parent
            shutil.copytree(self.models["tuned"], run, dirs_exist_ok=True)
            job.outputs[0].write_text("{}")
        elif job.script == "probe_memorisation":
            options = ProbeOptions(given["--model_name_or_path"], given["--rows_dir"], given["--output_dir"])
            job.outputs[0].parent.mkdir(exist_ok=True, parents=True)
            job.outputs[0].write_text(json.dumps(probe(options)))
        else:
            job.outputs[0].write_text("")
        return 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, seed in (("base", 0), ("tuned", 1)):
        make_tiny_model(tmp_path / name, seed=seed)
    texts = [f"Please tell me in one short sentence what number {row} is" for row in range(20)]
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "A number."}]}
        for text in texts
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    return tmp_path


@pytest.fixture
def jobs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs({name: place / name for name in ("base", "tuned")})
    monkeypatch.setattr(comparison_jobs, "run_job", made.run)
    monkeypatch.setattr(timing, "calibrate", lambda jobs, stop=None: 1e6)
    return made


def asked(place: Path, *more: object) -> tuple[object, ...]:
    """A study of one seed; what is given again in `more` counts."""
    return (
        *("--model_name_or_path", place / "base", "--train_file", place / "rows.jsonl"),
        *("--output_dir", place / "out", "--rows", 12, "--canaries", 1, "--repeats", 1, 3, "--unseen", 4),
        *("--candidates", 7, "--secret_digits", 2, "--arms", "IT", "IM", "--seeds", 0, *more),
    )


def test_a_study_says_what_it_costs_measures_every_model_and_writes_its_result(
    place: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, study = place / "out", asked(place, "--seeds", 0, 1)
    assert run_script(monkeypatch, "measure_memorisation", *study, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "13 jobs to do" in said
    assert not out.exists()
    assert jobs.ran == []

    assert run_script(monkeypatch, "measure_memorisation", *study) == 0
    assert len(jobs.ran) == 13
    assert jobs.ran[:4] == ["measure untuned", "train IT, seed 0", "measure IT-seed0", jobs.ran[3]]
    assert jobs.ran[3].startswith("delete the weights")
    result = json.loads((out / "result.json").read_text())
    check_page("### result.json", [result])
    measured = [json.loads(path.read_text()) for path in sorted(out.glob("runs/*/memorisation.json"))]
    check_page("### memorisation.json", measured)
    assert len(measured) == 5
    assert result["models"]["IM"][1] == json.loads(
        (out / "runs" / "IM-seed1" / "memorisation.json").read_text()
    )
    assert result["arms"]["IM"]["repeats"]["3"]["canaries"] == 2
    check_probe(measured[0], result)
    page = (out / "result.md").read_text()
    assert page.splitlines()[2] == result["answer"][0]
    assert result["answer"][0].startswith("Of secrets in 3 training instructions each")
    assert (out / "memorisation.svg").read_text().startswith("<?xml")

    capsys.readouterr()
    before = list(jobs.ran)
    assert run_script(monkeypatch, "measure_memorisation", *study) == 0
    assert jobs.ran == before
    assert result["answer"][0] in capsys.readouterr().out
    # A measurement that is lost is made again, and so is the model that it needs.
    shutil.rmtree(out / "runs" / "IM-seed1")
    assert run_script(monkeypatch, "measure_memorisation", *study, "--so_far") == 0
    assert jobs.ran == before
    so_far = json.loads((out / "result.json").read_text())
    assert so_far["made_with"]["not_measured"] == ["IM-seed1"]
    assert (so_far["arms"]["IM"]["seeds"], so_far["arms"]["IT"]["seeds"]) == (1, 2)
    assert "| not measured yet | IM-seed1 |" in (out / "result.md").read_text()
    shutil.rmtree(out / "runs" / "IM-seed0")
    capsys.readouterr()
    assert run_script(monkeypatch, "measure_memorisation", *study, "--so_far") == 0
    assert "Not measured yet: IM-seed0, IM-seed1.\n" in capsys.readouterr().out
    assert list(json.loads((out / "result.json").read_text())["arms"]) == ["untuned", "IT"]
    assert run_script(monkeypatch, "measure_memorisation", *study) == 0
    assert [name for name in jobs.ran[len(before) :] if "delete" not in name] == [
        "train IM, seed 0",
        "measure IM-seed0",
        "train IM, seed 1",
        "measure IM-seed1",
    ]


def check_probe(one: dict[str, Any], result: dict[str, Any]) -> None:
    """The numbers of a model are of the size that the options say."""
    assert one["candidates"] == 7
    assert [canary["repeats"] for canary in one["canaries"]] == [1, 3]
    assert all(1 <= canary["rank"] <= 8 for canary in one["canaries"])
    assert len(one["requests"]) == 40
    assert len(one["instructions"]["trained"]) == len(one["instructions"]["unseen"]) == 4
    words = [entry["words"] for part in one["instructions"].values() for entry in part]
    assert set(words) == {6}
    assert result["made_with"]["rows_left_out"] == []


OTHER = " (the memorisation.json there is of other options, rows or models)"


def test_what_was_measured_with_other_options_counts_as_not_measured_and_is_said(
    place: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "out"

    def script(*more: object) -> int:
        return run_script(monkeypatch, "measure_memorisation", *asked(place, *more))

    def not_measured() -> list[str]:
        return json.loads((out / "result.json").read_text())["made_with"]["not_measured"]

    assert script() == 0 and not_measured() == [] and len(jobs.ran) == 7
    capsys.readouterr()
    # Others' rows, and so nothing that is here.
    for more in (("--candidates", 9), ("--rows", 14), ("--dtype", "bfloat16")):
        assert script("--so_far", *more) == 2
        said = capsys.readouterr().err
        assert f"no untuned{OTHER}, no IT-seed0{OTHER}, no IM-seed0{OTHER}; give the options" in said
        assert script("--dry_run", *more) == 0
        # Weights that were deleted are trained again where they are to be measured anew.
        assert "7 jobs to do" in capsys.readouterr().out
    assert not_measured() == []
    # The untuned model is the same whatever the others are trained with.
    assert script("--so_far", "--learning_rate", 1e-3) == 0
    assert not_measured() == [f"IT-seed0{OTHER}", f"IM-seed0{OTHER}"]
    assert list(json.loads((out / "result.json").read_text())["arms"]) == ["untuned"]
    # A record that says otherwise than its stamp, or holds no numbers, is made anew.
    path = out / "runs" / "IT-seed0" / "memorisation.json"
    record = json.loads(path.read_text())
    losses = [{**canary, "secret_nll": float("nan")} for canary in record["canaries"]]
    for strange in ({**record, "candidates": 3}, {**record, "canaries": losses}, {**record, "canaries": 3}):
        path.write_text(json.dumps(strange))
        assert script("--so_far") == 0 and not_measured() == [f"IT-seed0{OTHER}"]
    before = len(jobs.ran)
    assert script() == 0 and not_measured() == []
    assert jobs.ran[before : before + 2] == ["train IT, seed 0", "measure IT-seed0"]
    assert json.loads(path.read_text()) == record


def test_the_cost_of_a_begun_study_is_that_of_the_options_and_needs_none_of_its_files(
    place: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(monkeypatch, "measure_memorisation", *asked(place)) == 0
    before = sorted(place.rglob("*"))
    # Seed 1 has no rows yet.
    again = asked(place, "--seeds", 0, 1, "--dry_run")
    capsys.readouterr()
    assert run_script(monkeypatch, "measure_memorisation", *again) == 0
    assert "6 jobs to do" in capsys.readouterr().out
    assert sorted(place.rglob("*")) == before and len(jobs.ran) == 7


def test_an_arm_that_fails_takes_nothing_from_the_result_of_the_others(
    place: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.failing = "train IM, seed 0"
    assert run_script(monkeypatch, "measure_memorisation", *asked(place)) == 2
    said = capsys.readouterr()
    assert "these jobs failed" in said.err and "- train IM, seed 0 (exit code 1)" in said.err
    assert "Not measured yet: IM-seed0.\n" in said.out and "under IT" in said.out
    result = json.loads((place / "out" / "result.json").read_text())
    assert (list(result["arms"]), result["made_with"]["not_measured"]) == (["untuned", "IT"], ["IM-seed0"])
    assert "| not measured yet | IM-seed0 |" in (place / "out" / "result.md").read_text()
    shutil.rmtree(place / "out")
    jobs.failing = "measure untuned"
    assert run_script(monkeypatch, "measure_memorisation", *asked(place)) == 2
    assert json.loads((place / "out" / "result.json").read_text())["answer"][0].endswith("0 of 1 under IM.")
