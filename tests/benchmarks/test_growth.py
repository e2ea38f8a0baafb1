"""The measurement of growth: rows are made as it says, processes are watched, and lines fitted by hand."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.growth import EXTRAPOLATED, fitted, made_rows, table, watch


def test_rows_are_repeated_under_new_ids(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"id": "a", "prompt": "x", "completion": "y"}\n{"prompt": "z", "completion": "w"}\n')
    rows = [
        json.loads(line) for line in made_rows(source, tmp_path / "made.jsonl", 5).read_text().splitlines()
    ]
    assert [row["id"] for row in rows] == [f"made_{number}" for number in range(5)]
    assert [row["prompt"] for row in rows] == ["x", "z", "x", "z", "x"]


def test_a_command_is_watched_with_its_children(tmp_path: Path) -> None:
    """A child that holds 64 MiB of its own for a second, and maps as much from a file."""
    held = (
        "import mmap, time; own = bytearray(2**26); "
        f"handle = open({str(tmp_path / 'file')!r}, 'rb'); "
        "shared = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ); sum(shared[::4096]); time.sleep(1)"
    )
    (tmp_path / "file").write_bytes(bytes(2**26))
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}]); "
    code = parent + "print('{\"tokens\": 7}'); print('that is all'); sys.exit(3)"
    found = watch([sys.executable, "-c", code], tmp_path)
    assert found["exit_code"] == 3 and found["tokens"] == 7 and found["said"] == "that is all"
    assert 64 < found["own_mib"] < 110 and found["seconds"] > 1


def test_lines_are_fitted_and_extrapolated_and_failures_are_named() -> None:
    assert fitted([(1, 5), (2, 7), (3, 9)], 10) == pytest.approx(23)
    point = {"exit_code": 0, "said": "", "tokens": 300, "read_cpu_seconds": 2.0, "encode_cpu_seconds": 10.0}
    point = {**point, "cached_cpu_seconds": 0.5, "weigh_cpu_seconds": 1.0, "cache_mib": 4.0, "own_mib": 300}
    twice = {**point, "tokens": 600, "encode_cpu_seconds": 20.0}
    broken = {"exit_code": 2, "said": "error: no room", "cpu_seconds": 1.0, "own_mib": 10}
    text = table({"rows": {"10": point, "20": twice}, "length": {"512": broken}})
    assert f"| {EXTRAPOLATED:,}, extrapolated by the fitted line | 90,000,000 | 2 | 3,000,000 |" in text
    assert "| 10 | 300 | 2.0 | 10.0 | 0.5 | 1.0 | 4.0 | 300 |" in text
    assert "| 512 (exit code 2: error: no room) | 1.0 | 10 | – |" in text
