"""The whole command: what fails is named at the end, and a run of an earlier command is never reported for
it."""

import json
from pathlib import Path

import pytest
from row_files import write
from script_loader import run_script
from tiny import make_tiny_model

from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison import timing

# Each stands for a script of src/: training fails for the arm that fails.txt names, everything else is made.
TRAIN = """
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
if folder.name.split("-")[0] in (pathlib.Path(__file__).parent / "fails.txt").read_text().split():
    sys.exit(3)
folder.mkdir(parents=True, exist_ok=True)
(folder / "run.json").write_text("{}")
"""
MEASURE = """
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
folder.mkdir(parents=True, exist_ok=True)
for name in ("summary.json", "losses.jsonl"):
    (folder / name).write_text("{}")
"""
REPORT = """
import json, pathlib, sys
(pathlib.Path(__file__).parent / "report.json").write_text(json.dumps(sys.argv[1:]))
"""


def test_a_run_that_an_earlier_command_left_is_not_reported_where_its_training_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name, text in (("finetune", TRAIN), ("compute_loss", MEASURE), ("report", REPORT)):
        (scripts / f"{name}.py").write_text(text)
    monkeypatch.setattr(comparison_jobs, "SCRIPTS", scripts)
    monkeypatch.setattr(timing, "calibrate", lambda jobs, stop=None: 1e6)
    rows = write(tmp_path, *({"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(12)))
    given = ["--model_name_or_path", make_tiny_model(tmp_path), "--train_file", rows]
    given += ["--output_dir", tmp_path / "out", "--train_responses", 0, "--test_responses", 0]

    def reported(fails: str, *more: object) -> tuple[int, list[str]]:
        (scripts / "fails.txt").write_text(fails)
        (scripts / "report.json").unlink(missing_ok=True)
        code = run_script(monkeypatch, "compare", *given, *more)
        if not (scripts / "report.json").exists():
            return code, []
        words = json.loads((scripts / "report.json").read_text())
        return code, [Path(word).name for word in words[1 : words.index("--base")]]

    assert reported("", "--dry_run") == (0, []), "nothing is started"
    said = capsys.readouterr().out
    assert said.count(" IM seed 0\n") == 1 and "8 jobs, about " in said and "none was started" in said
    assert not list((tmp_path / "out").rglob("run.json"))
    assert reported("") == (0, ["IT-seed0", "IM-seed0"])
    capsys.readouterr()
    assert reported("IM", "--learning_rate", 1) == (2, ["IT-seed0"])
    error = capsys.readouterr().err
    assert "IM seed 0 (exit code 3)" in error and "IT seed 0" not in error
    assert reported("IT IM", "--learning_rate", 2) == (2, [])
    error = capsys.readouterr().err
    assert "IM seed 0 (exit code 3)" in error and "IT seed 0 (exit code 3)" in error
    assert reported("IM") == (0, ["IT-seed0", "IM-seed0"]), "what wrote nothing replaced nothing"
    # What lies there of a model and no job of this command has made is not this command's.
    words = json.loads((scripts / "report.json").read_text())
    assert "--left_out" not in words and "--failed" not in words
    (data,) = (path for path in (tmp_path / "out").iterdir() if (path / "rows.json").exists())
    earlier = data / "IM-seed0" / "eval" / "test" / "generation.json"
    earlier.write_text("{}")
    reported("")
    words = json.loads((scripts / "report.json").read_text())
    assert words[words.index("--left_out") + 1 :] == [str(earlier)]
    reported("IM", "--learning_rate", 3)
    words = json.loads((scripts / "report.json").read_text())
    assert words[words.index("--failed") + 1].endswith("IM seed 0 (exit code 3)")


def test_what_the_report_reads_is_asked_for_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path, *({"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(12)))
    given = ["--model_name_or_path", make_tiny_model(tmp_path), "--train_file", rows]
    given += [
        "--output_dir",
        tmp_path / "out",
        "--page",
        "a=/no/such.html",
        "--weights_json",
        "/no/such.json",
    ]
    assert run_script(monkeypatch, "compare", *given) == 2
    said = capsys.readouterr().err
    assert "--page /no/such.html: there is no such file" in said
    assert "--weights_json /no/such.json: there is no such file" in said
