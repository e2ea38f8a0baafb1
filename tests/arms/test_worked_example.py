"""The worked example of docs/tools_and_users.md says what its committed numbers say."""

import json
import math
import re
from pathlib import Path
from statistics import mean, stdev

DOCS = Path(__file__).resolve().parents[2] / "docs"
KINDS = ("tool", "tool_calls", "assistant", "response", "user", "user_end")


def test_every_number_of_the_table_is_that_of_the_test_rows() -> None:
    page = (DOCS / "tools_and_users.md").read_text(encoding="utf-8")
    rows = json.loads((DOCS / "results" / "tools_and_users" / "losses.json").read_text())["test_rows"]
    shown = {
        line.split(" | ")[0].strip("| "): line
        for line in page.splitlines()
        if re.match(r"\| \S+ \| \d", line)
    }
    assert set(shown) == set(rows) >= {"untuned", "IT", "tool-outputs", "tool-outputs-alone"}
    for arm, of_arm in rows.items():
        assert len(of_arm) == len(rows["IT"]) == 17
        cells = shown[arm].strip("| ").split(" | ")[1:]
        for kind, cell in zip(KINDS, cells, strict=True):
            pairs = [
                (row[kind][0], it[kind][0])
                for row, it in zip(of_arm, rows["IT"], strict=True)
                if kind in row and kind in it
            ]
            assert cell.startswith(f"{mean(own for own, _ in pairs):.3f}")
            if arm not in ("untuned", "IT"):
                gains = [own - it for own, it in pairs]
                assert cell.endswith(f"({mean(gains):+.3f} ± {stdev(gains) / math.sqrt(len(gains)):.3f})")
