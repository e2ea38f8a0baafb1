"""From readings to a table: rates, paired ratios, and who did not do the same work."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.counts import COUNTS
from benchmarks.preparation import expected_loss
from benchmarks.ratios import Spread, paired_ratios, verdict
from benchmarks.rows import OURS, Contender, Row
from benchmarks.turns import Readings

# How far the first update's loss may be from transformers' own, relative to it.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
RATES = (*COUNTS, "new_tokens")
SEES_OTHERS = "documents see each other"


def value_of(row: Row, reading: Mapping[str, Any]) -> float:
    """Return what the row compares of one turn: a rate by second, or a cost."""
    if row.measure in RATES:
        return reading[row.measure] / reading["seconds"]
    if row.measure == "per_gb":
        return reading["seconds"] / reading["gb"]
    if row.measure == "peak_bytes":
        return reading["peak_bytes"] / 1e6
    return float(reading[row.measure])


def why_not_the_same_work(
    row: Row, contender: Contender, readings: Readings, ours: Readings, first_losses: Any
) -> str:
    """Return in words why a contender's turns are not the work of this row; "" where they are.

    Args:
        first_losses: of a row of training, each first row's NLL and number of labels; else None.
    """
    if contender.note:
        return contender.note
    if readings.first.get("sees_others"):
        return SEES_OTHERS
    if row.fresh or not ours.warm_up:
        return ""
    other_rows = contender.settings.get("packing") or contender.settings.get("sort")
    for count in ("tokens", "weighted"):
        if not other_rows and readings.warm_up.get(count, 0) != ours.warm_up.get(count, 0):
            return f"{readings.warm_up.get(count)} {count} and not {ours.warm_up.get(count)}"
    expected = _expected(contender, ours, first_losses)
    if expected is None:
        return ""
    tolerance = TOLERANCE[row.settings.get("precision", "fp32")]
    # Contenders that share a process share a model, which is untouched for the first of them alone.
    loss = readings.first.get("losses", {}).get(contender.name, readings.warm_up["loss"])
    if abs(loss - expected) > tolerance * abs(expected):
        return f"first loss {loss:.5f} and not {expected:.5f}"
    return ""


def _expected(contender: Contender, ours: Readings, first_losses: Any) -> float | None:
    """Return the loss that the first turn must have; None where nothing says it."""
    if first_losses is None:
        # What scores or computes a loss alone is held against ours.
        return ours.warm_up.get("loss")
    normalization = contender.settings.get("loss") or ("example" if contender.name == OURS else None)
    if normalization is None:
        return None
    return expected_loss(first_losses, normalization, contender.settings.get("size", 0))


def row_result(
    row: Row, readings: Mapping[str, Readings], first_losses: Any, load: Sequence[float]
) -> dict[str, Any]:
    """Return one row of results.json.

    Args:
        load: the machine's load before the row and after it, jobs that want to run.
    """
    ours = readings[OURS]
    values = {
        name: [value_of(row, reading) for reading in of.turns]
        for name, of in readings.items()
        if of.turns and not of.failed
    }
    contenders: dict[str, Any] = {}
    for contender in row.contenders:
        of = readings[contender.name]
        entry: dict[str, Any] = {"failed": of.failed, "other_work": None, "readings": of.turns}
        contenders[contender.name] = entry
        if contender.name not in values:
            entry["failed"] = of.failed or "no turn was measured"
            continue
        entry["other_work"] = why_not_the_same_work(row, contender, of, ours, first_losses) or None
        entry["value"] = asdict(Spread.of(values[contender.name]))
        entry["counts"] = {
            count: asdict(Spread.of([reading[count] / reading["seconds"] for reading in of.turns]))
            for count in COUNTS
            if count in of.turns[0] and "seconds" in of.turns[0]
        }
        if contender.name != OURS and of.beside and not ours.failed:
            beside = [value_of(row, reading) for reading in of.beside]
            ratios = paired_ratios(beside, values[contender.name], row.higher_is_better)
            entry["ratio"] = asdict(Spread.of(ratios))
    return {
        "row": row.name,
        "title": row.title,
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "contenders": contenders,
        **judged(contenders),
        "load_before": load[0],
        "load_after": load[1],
    }


def judged(contenders: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"best_peer", "verdict"} of a row: against the peer that comes closest, or is farthest ahead, of
    those that do the same work."""
    if contenders[OURS]["failed"] or contenders[OURS]["other_work"]:
        return {"best_peer": None, "verdict": "not measured"}
    peers = {
        name: Spread(**entry["ratio"])
        for name, entry in contenders.items()
        if entry.get("ratio") and not entry["other_work"]
    }
    if not peers:
        return {"best_peer": None, "verdict": "no peer"}
    best = min(peers, key=lambda name: peers[name].median)
    return {"best_peer": best, "verdict": verdict(peers[best])}


def answer(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the answer in one sentence or two: where we are ahead, level or behind."""
    by_verdict: dict[str, list[str]] = {}
    for row in rows:
        by_verdict.setdefault(row["verdict"], []).append(row["row"])
    text = f"Ahead in {len(by_verdict.get('ahead', []))} of {len(rows)} rows"
    for name in ("level", "behind", "no peer", "not measured"):
        if name in by_verdict:
            text += f"; {name} in: {', '.join(by_verdict[name])}"
    return text + "."
