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
        self.models, self.ran = models, list[str]()

    def run(self, job: Job, stop: StopSignals, start: object = None) -> int:
        job.forget()
        self.ran.append(job.name)
        given = dict(zip(job.arguments[::2], job.arguments[1::2], strict=False))
        if job.script == "finetune":
            assert job.arguments[:2] == ["--packing", "--overwrite_output"]
            run = job.outputs[0].parent
            shutil.copytree(self.models["tuned"], run)
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


def test_a_study_says_what_it_costs_measures_every_model_and_writes_its_result(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs({name: place / name for name in ("base", "tuned")})
    monkeypatch.setattr(comparison_jobs, "run_job", jobs.run)
    monkeypatch.setattr(timing, "calibrate", lambda jobs, stop=None: 1e6)
    out = place / "out"
    asked = (
        *("--model_name_or_path", place / "base", "--train_file", place / "rows.jsonl", "--output_dir", out),
        *("--rows", 12, "--canaries", 1, "--repeats", 1, 3, "--candidates", 7, "--unseen", 4),
        *("--secret_digits", 2, "--arms", "IT", "IM"),
    )
    assert run_script(monkeypatch, "measure_memorisation", *asked, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "13 jobs to do" in said
    assert not out.exists()
    assert jobs.ran == []

    assert run_script(monkeypatch, "measure_memorisation", *asked) == 0
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
    assert run_script(monkeypatch, "measure_memorisation", *asked) == 0
    assert jobs.ran == before
    assert result["answer"][0] in capsys.readouterr().out
    # A measurement that is lost is made again, and so is the model that it needs.
    shutil.rmtree(out / "runs" / "IM-seed1")
    assert run_script(monkeypatch, "measure_memorisation", *asked, "--so_far") == 0
    assert jobs.ran == before
    so_far = json.loads((out / "result.json").read_text())
    assert so_far["made_with"]["not_measured"] == ["IM-seed1"]
    assert (so_far["arms"]["IM"]["seeds"], so_far["arms"]["IT"]["seeds"]) == (1, 2)
    assert "| not measured yet | IM-seed1 |" in (out / "result.md").read_text()
    shutil.rmtree(out / "runs" / "IM-seed0")
    assert run_script(monkeypatch, "measure_memorisation", *asked, "--so_far") == 2
    assert "nothing is measured of IM" in capsys.readouterr().err
    assert run_script(monkeypatch, "measure_memorisation", *asked) == 0
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
