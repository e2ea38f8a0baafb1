"""The warning of privacy says what was measured, and stands where a loss on instructions was used."""

import hashlib
import json
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import finetune, sample_rows, write_rows

from instruction_modelling.memorisation.report import figure_for_warnings, table
from instruction_modelling.runs.privacy import measured, privacy_note

RESULT = Path(__file__).resolve().parents[2] / "docs" / "results" / "memorisation" / "result.json"


def test_the_page_says_what_the_result_says() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    page = (RESULT.parents[2] / "memorisation.md").read_text(encoding="utf-8")
    assert [line for line in result["answer"] if line not in page] == []
    assert result["made_with"]["command"] in page
    assert [line for line in table(result["arms"]) if line not in page] == []


def test_the_warning_has_the_figures_of_the_committed_result() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert measured() == figure_for_warnings(result)
    most = str(max(result["options"]["repeats"]))
    note = privacy_note()
    for arm in ("IT", "IM", "IM-w0.1"):
        one = result["arms"][arm]["repeats"][most]
        assert f"{one['extracted']} of {one['canaries']} under {arm}" in note
        assert f"{one['exposure_mean']:.1f} under {arm}" in note
    assert "arXiv 2505.15656" in note
    assert "arXiv 2601.17480" in note
    chance, date = measured()["exposure"]["chance"], result["made_with"]["date"]
    assert f"by chance {chance:.1f}; {date}, src/measure_memorisation.py)" in note


@pytest.mark.parametrize(("flags", "warns"), [((), False), (("--instruction_loss_weight", 0.1), True)])
def test_the_card_of_a_run_with_a_loss_on_instructions_warns(
    tmp_path: Path, flags: tuple[object, ...], warns: bool
) -> None:
    model = make_tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(4))
    card = (finetune(model, rows, tmp_path / "run", "--max_train_steps", 1, *flags) / "README.md").read_text()
    assert (privacy_note() in card) is warns


def test_a_run_folder_has_no_text_of_its_rows_and_the_hash_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows used, left out and refused; weights, checkpoints, logs, records, trackers and the model card."""
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    rows = [{**row, "owner": "MARKEDname"} for row in sample_rows(6)]
    for row in rows[:2]:
        row["messages"][0]["content"] += " MARKEDquestion"
        row["messages"][-1]["content"] += " MARKEDanswer"
    rows.append({"messages": [{"role": "user", "content": "MARKEDrefused"}, {"role": "assistant"}]})
    path = write_rows(tmp_path / "rows.jsonl", rows)
    flags = ["--max_bad_rows", 1, "--max_train_steps", 2, "--checkpointing_steps", 1, "--use_lm_loss"]
    folder = finetune(make_tiny_model(tmp_path / "model"), path, tmp_path / "run", *flags, "--with_tracking")
    files = [file for place in (folder, tmp_path / "cache") for file in place.rglob("*") if file.is_file()]
    assert {"bad_rows.jsonl", "train.log", "README.md", "run.json"} <= {file.name for file in files}
    assert any("tfevents" in file.name for file in files) and any(f.suffix == ".npy" for f in files)
    assert [file for file in files if b"MARKED" in file.read_bytes()] == []
    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"]
    assert data["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
