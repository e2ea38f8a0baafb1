"""How many rows a comparison leaves out of every arm, in words."""

from typing import Any, Literal

RowSet = Literal["common", "own"]
_ROWS_OF = {"train": "training rows", "test": "test rows"}


def left_out_lines(counts: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence for each part of which rows are left out.

    Args:
        counts: as in rows.json, by part: rows, used, and left_out by reason.
    """
    return [
        f"{of_part['rows'] - of_part['used']} of {of_part['rows']} {_ROWS_OF[part]} are left out of every "
        "arm (" + ", ".join(f"{count} {reason}" for reason, count in of_part["left_out"].items()) + ")"
        for part, of_part in counts.items()
        if of_part["left_out"]
    ]
