"""The results as text: a short table for the terminal, and one with every contender and count in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.counts import COUNTS, MEANING
from benchmarks.rows import OURS


def short_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each row: ours, the best peer, and how many times as good we are."""
    lines = [["row", "here", "best peer", "", "ratio (range)", "verdict"]]
    for row in rows:
        ours, best = row["contenders"][OURS], row["best_peer"]
        peer = row["contenders"][best] if best else {}
        lines.append(
            [
                f"{row['title']} ({row['unit']})",
                number(ours["value"]["median"]) if ours.get("value") else str(ours["failed"]),
                number(peer["value"]["median"]) if best else "",
                best or "",
                spread(peer["ratio"]) if best else "",
                row["verdict"],
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def long_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return every contender of every row as Markdown."""
    parts = []
    for row in rows:
        counted = [count for count in COUNTS if _has(row, count)]
        head = ["contender", f"{row['unit']}, median (range)", "here / it, median (range)"]
        head += [f"{count} per second" for count in counted] if len(counted) > 1 else []
        head.append("remarks")
        lines = [f"### {row['title']}: {row['verdict']}", "", _line(head), _line(["---"] * len(head))]
        for name, entry in row["contenders"].items():
            remark = entry["failed"] or (
                f"not the same work: {entry['other_work']}" if entry["other_work"] else ""
            )
            cells = [name, spread(entry.get("value")), spread(entry.get("ratio"))]
            if len(counted) > 1:
                cells += [
                    number((entry.get("counts") or {}).get(count, {}).get("median")) for count in counted
                ]
            lines.append(_line([*cells, remark]))
        parts.append("\n".join(lines))
    meanings = "; ".join(f"*{name}*: {meaning}" for name, meaning in MEANING.items())
    return "\n\n".join([*parts, f"Counts: {meanings}."]) + "\n"


def _has(row: Mapping[str, Any], count: str) -> bool:
    return any(count in (entry.get("counts") or {}) for entry in row["contenders"].values())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(values: Mapping[str, Any] | None) -> str:
    """Return a median and its range as text; "" for none."""
    if not values:
        return ""
    return f"{number(values['median'])} ({number(values['low'])}–{number(values['high'])})"


def number(value: float | None) -> str:
    """Return a number with three digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
