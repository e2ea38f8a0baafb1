"""Converting a million rows: memory stays where it was, and the time is that of reading and writing JSON.

    python -m pytest -m slow -s tests/sources/test_conversion_scale.py

prints rows a second and the growth of memory. It writes 1.3 GB to the temporary folder (--basetemp chooses
another)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = 1_000_000
_MEASURED = """
import json, resource, sys, time
from pathlib import Path
from instruction_modelling.sources.conversion.convert import convert

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

raw, output = Path(sys.argv[1]), Path(sys.argv[2])
convert("stanford_alpaca", [raw.with_name("few" + raw.suffix)], output)
before, start = peak(), time.process_time()
report = convert("stanford_alpaca", [raw], output)
seconds, grown = time.process_time() - start, peak() - before
print(json.dumps({"rows": report.rows_written, "seconds": seconds, "grown": grown, "peak": peak()}))
"""


def standard_library_seconds(raw: Path, rows: int) -> float:
    """CPU seconds of json.loads and json.dumps on the first rows of a file of lines."""
    import time

    with raw.open("rb") as handle:
        lines = [next(handle) for _ in range(rows)]
    start = time.process_time()
    for line in lines:
        json.dumps(json.loads(line), ensure_ascii=False)
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".jsonl", ".json"])
def test_a_million_rows_convert_in_constant_memory_at_the_speed_of_json(tmp_path: Path, kind: str) -> None:
    texts = [
        "Explain to a friend how tides come about. " + "Please mind the details. " * (i % 16)
        for i in range(512)
    ]
    raw, few = tmp_path / f"raw{kind}", tmp_path / f"few{kind}"
    for path, count in ((raw, ROWS), (few, 10_000)):
        with path.open("w", encoding="utf-8") as handle:
            handle.write("[" if kind == ".json" else "")
            for i in range(count):
                separator = ("" if i == 0 else ",\n") if kind == ".json" else ""
                row = json.dumps(
                    {"instruction": texts[i % 512], "input": "", "output": f"{i}: {texts[-i % 512]}"}
                )
                handle.write(separator + row + ("" if kind == ".json" else "\n"))
            handle.write("]" if kind == ".json" else "")
    command = [sys.executable, "-c", _MEASURED, str(raw), str(tmp_path / "out.jsonl")]
    try:
        measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        size, seconds = raw.stat().st_size, measured["seconds"]
        standard = standard_library_seconds(raw, 100_000) * ROWS / 100_000 if kind == ".jsonl" else None
    finally:
        # Pytest keeps the folders of its last runs.
        for path in tmp_path.iterdir():
            path.unlink()
    print(
        f"\n{kind}: {measured['rows']:,} rows, {size / 1e9:.2f} GB, {measured['rows'] / seconds:,.0f} rows/s "
        "of one core, "
        f"{size / seconds / 1e6:.0f} MB/s; peak memory {measured['peak']:.0f} MiB, grown by "
        f"{measured['grown']:.1f} MiB"
    )
    assert measured["rows"] == ROWS
    assert measured["grown"] < 16
    if standard is not None:
        print(f"the standard library's json.loads and json.dumps alone: {ROWS / standard:,.0f} rows/s")
        assert seconds < 1.5 * standard
