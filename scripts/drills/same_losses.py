"""Compare the losses of two run folders, step by step: print how far they differ; exit with 1 if too much.

    python scripts/drills/same_losses.py ONE OTHER [TOLERANCE]

TOLERANCE is relative (default 1e-4: sums in another order, in float32; 0 asks for the same bits)."""

import json
import sys
from pathlib import Path


def losses(folder: Path) -> dict[int, float]:
    """Return the loss of every step of a run; a step that was done twice counts once, as it was last."""
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def main() -> int:
    """Print the comparison."""
    one, other = (losses(Path(folder)) for folder in sys.argv[1:3])
    tolerance = float(sys.argv[3]) if len(sys.argv) > 3 else 1e-4
    if not one or one.keys() != other.keys():
        print(f"NOT the same steps: {len(one)} and {len(other)}")
        return 1
    farthest = max(abs(one[step] - other[step]) / abs(one[step]) for step in one)
    same = farthest <= tolerance
    words = "the same" if same else "NOT the same"
    print(f"{words} losses, step by step ({len(one)} steps, farthest apart {farthest:.1g})")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
