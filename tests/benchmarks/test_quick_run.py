"""The benchmark from its command to its files, on the smallest rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from files_page import check_page

from benchmarks.counts import IGNORED
from benchmarks.rows import OURS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves behind."""
    out = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "benchmarks/run.py", "--quick", "--pairs", "1", "--output_dir", str(out)]
    command += ["--at_once", "2"]
    command += ["--only", "training-im-fp32", "encoding-short", "scoring-fp32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


@pytest.mark.slow
def test_the_answer_comes_first_and_every_row_has_a_verdict(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    check_page("## The benchmark: `benchmarks/run.py`", [results])
    printed = (folder / "printed.txt").read_text().splitlines()
    assert printed[0] == results["answer"] and results["answer"].startswith("Ahead in ")
    assert [row["row"] for row in results["rows"]] == ["training-im-fp32", "encoding-short", "scoring-fp32"]
    assert {row["verdict"] for row in results["rows"]} <= {"ahead", "level", "behind"}
    assert results["complete"] and results["versions"]["torch"] and results["machine"]["cores"]
    assert (folder / "ratios.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "table.md").read_text().count("| here |") == 3


@pytest.mark.slow
def test_every_trainer_does_the_same_work_and_counts_it_alike(folder: Path) -> None:
    row = json.loads((folder / "results.json").read_text())["rows"][0]
    tokens = json.loads((folder / "prepared" / "tokens-im.json").read_text())
    # The second update: the first warms up.
    second = tokens[8:16]
    expected = {
        "tokens": sum(len(one["input_ids"]) for one in second),
        "weighted": sum(label != IGNORED for one in second for label in one["labels"][1:]),
    }
    assert row["contenders"][OURS]["readings"][0]["positions"] == expected["tokens"]
    for name, contender in row["contenders"].items():
        assert contender["failed"] is None, name
        assert contender["other_work"] is None, name
        # Ours has a turn beside each other process; two of the plain loop share one.
        reading = contender["readings"][0]
        assert len(contender["readings"]) == (len(row["contenders"]) - 2 if name == OURS else 1)
        if name not in ("TRL, packing", "plain loop, padded 8 by length"):
            assert {count: reading[count] for count in expected} == expected, name
        assert reading["seconds"] > 0
    padded = row["contenders"]["TRL, padded 8"]["readings"][0]
    assert padded["positions"] == 8 * max(len(one["input_ids"]) for one in second)
