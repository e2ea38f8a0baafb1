"""Check the seconds that a run has written of itself: print them; exit with 1 where a clock that jumped got
into them.

python scripts/drills/sane_times.py RUN"""

import json
import re
import sys
from pathlib import Path

run = Path(sys.argv[1])
lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
steps = [line["seconds"] for line in lines if "seconds" in line]
whole = json.loads((run / "run.json").read_text())["seconds"]
left = re.findall(r"tok/s  (.+) left", (run / "train.log").read_text())
# No step of the drill takes a minute.
sane = (
    all(0 < each < 60 for each in steps)
    and sum(steps) <= whole < 600
    and not any("h" in words for words in left)
)
shown = f"steps of {min(steps):.2f} to {max(steps):.2f} s, {whole:.1f} s in all"
print(f"{shown}, `{left[1]} left` after the second step")
sys.exit(0 if sane else 1)
