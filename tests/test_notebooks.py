"""The notebooks were run as they stand: their cells in order, without an error, and a run of today goes the
same way. That their commands and links exist is held with those of the other pages (test_docs.py)."""

from pathlib import Path

import pytest
from guides import clone
from notebooks import NOTEBOOKS, cells, execute
from tiny import make_tiny_model

ROOT = Path(__file__).resolve().parents[1]


def written(path: Path) -> str:
    """What the cells of a notebook wrote as text."""
    outputs = [output for cell in cells(path) for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_there_is_one_and_the_readme_leads_to_it() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS and all(f"docs/notebooks/{path.name}" in readme for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_in_order_to_its_end_and_stays_small(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
    said = written(path)
    assert "Traceback" not in said and "error:" not in said and "command not found" not in said
    # Nothing of the machine it was run on.
    assert "/home/" not in said and "/tmp/" not in said and "/work" not in said
    assert path.stat().st_size < 150_000


def test_the_first_hour_ends_with_what_it_says() -> None:
    said = written(next(path for path in NOTEBOOKS if path.stem == "first_hour"))
    table = [line.split() for line in said.splitlines()]
    losses = {
        line[0]: list(map(float, line[1:])) for line in table if line and line[0] in ("untuned", "IT", "IM")
    }
    assert losses.keys() == {"untuned", "IT", "IM"}
    # As the text says: IM is less surprised by questions than IT, and both answer better than before.
    assert losses["IM"][0] < losses["IT"][0]
    assert max(losses["IT"][1], losses["IM"][1]) < losses["untuned"][1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_today(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny model in the real one's place."""
    pytest.importorskip("nbclient", reason="requirements-notebook.txt is not installed")
    pytest.importorskip("ipykernel", reason="requirements-notebook.txt is not installed")
    clone(tmp_path)
    monkeypatch.setenv("MODEL", str(make_tiny_model(tmp_path / "models" / "tiny")))
    ran = execute(path, tmp_path)
    before = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    after = [cell for cell in ran.cells if cell["cell_type"] == "code"]
    kinds = [[output["output_type"] for output in cell["outputs"]] for cell in (*before, *after)]
    assert kinds[: len(before)] == kinds[len(before) :]
    assert "untuned" in "".join(output.get("text", "") for cell in after for output in cell["outputs"])
