"""The answer of a report in plain words: each arm against the untuned model, then IM against IT.

A measure speaks only where it can: it has a better side, at least `LEAST_ROWS` rows are paired, not all
values are 0, and its interval leaves 0 out. Measures that point both ways are said to disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet, row_warnings
from instruction_modelling.comparison.report.measures import MEASURES, Measure
from instruction_modelling.progress import counted

LEAST_ROWS = 30
UNTUNED = "the untuned model"
# What the answer rests on: measured on test rows, with a side that is better.
ANSWERING = tuple(m for m in MEASURES if m.split == "test" and m.better and m.row_key)
Reading = Literal["better", "worse", "lower", "higher", "no clear difference", "cannot tell"]


@dataclass(frozen=True)
class Compared:
    """One measure of two arms, on the same rows."""

    measure: Measure
    difference: dict[str, Any]
    """As results.json holds it: first minus second."""
    first: float
    second: float

    @property
    def is_silent(self) -> bool:
        """Return whether the measure has the value 0 for both, and so says nothing."""
        return self.first == self.second == 0

    @property
    def reading(self) -> Reading:
        """Return what the measure says of the first against the second."""
        return reading(self.measure, self.difference, self.is_silent)

    def words(self) -> str:
        """Return the two values and their difference with its interval."""
        measure, unit = self.measure, " %" if self.measure.unit == "%" else ""
        values = f"{measure.show(self.first)}{unit} against {measure.show(self.second)}{unit}"
        values += "" if unit else f" {measure.unit}"
        low, high = (measure.show_signed(self.difference[end]) for end in ("low", "high"))
        change = measure.show_signed(self.difference["mean"])
        doubt = ", not in every seed" if self.difference["seeds_agree"] is False else ""
        return f"{measure.lowered_label} {values} (difference {change}, 95 % interval {low} to {high}{doubt})"


def reading(measure: Measure, difference: dict[str, Any], is_silent: bool = False) -> Reading:
    """Return what a paired difference says: better or worse (lower or higher, of a measure without a better
    side), or that it is not clear, or that this cannot be told.

    Args:
        difference: as results.json holds it.
        is_silent: whether all values are 0.
    """
    is_short = difference["covers_zero"] is None or difference["rows"] < LEAST_ROWS
    if is_silent or is_short or difference.get("not_finite"):
        return "cannot tell"
    if difference["covers_zero"]:
        return "no clear difference"
    side: Literal["lower", "higher"] = "lower" if difference["verdict"] == "lower" else "higher"
    if measure.better is None:
        return side
    return "better" if side == measure.better else "worse"


def why_not_told(difference: dict[str, Any], is_silent: bool) -> str:
    """Return why a measure cannot tell, in a few words."""
    if is_silent:
        return "all values are 0"
    if diverged := difference.get("not_finite"):
        return f"no number for {', '.join(diverged)}: training has diverged, or a row cannot be measured"
    rows = difference["rows"]
    return f"{rows} row{'' if rows == 1 else 's'}, at least {LEAST_ROWS} needed: a larger file or --test_file"


def answer_lines(data: ReportedDataSet, results: dict[str, Any]) -> list[str]:
    """Return this data set's answer, a sentence or two for each comparison: IM (or the arm that stands for
    it) and IT against the untuned model, then IM against IT, and whether these two had other rows."""
    arm, reference = data.contrast, data.reference
    lines = []
    tuned = [each for each in (arm, reference) if each is not None]
    if data.base is None:
        lines.append(
            f"On {data.name} {UNTUNED} was not measured, so it cannot be told whether tuning helped at all."
        )
    for each in tuned if data.base is not None else []:
        lines.append(_answer(data, results, each, data.base, UNTUNED))  # type: ignore[arg-type]
    if arm is None or reference is None:
        lacks = "an IT run" if reference is None else "a run of another arm"
        lines.append(f"On {data.name} the question is not answered here: it takes {lacks} to compare with.")
    else:
        lines.append(_answer(data, results, arm, reference, reference.name))
    lines += [f"On {data.name}: {line[0].lower()}{line[1:]}" for line in row_warnings(tuned)]
    if data.failed:
        jobs = counted(len(data.failed), "job")
        lines.append(f"{jobs} of the comparison failed, so runs or measurements may be missing here.")
    return lines


def compared(results: dict[str, Any], arm: ReportedArm, other: ReportedArm) -> list[Compared]:
    """Return the answering measures that both arms have, on rows that can be paired."""
    kept = results["differences_from_base" if other.is_base else "differences"].get(arm.name, {})
    found = []
    for measure in ANSWERING:
        difference = kept.get(measure.key)
        if difference is not None:
            # Of the rows that are paired: a mean over other rows would not fit the difference.
            found.append(Compared(measure, difference, *difference["values"]))
    return found


def _answer(
    data: ReportedDataSet, results: dict[str, Any], arm: ReportedArm, other: ReportedArm, name: str
) -> str:
    """Return what the measures say of one arm against another."""
    where, pairs = f"On {data.name}", compared(results, arm, other)
    said = {
        word: [pair for pair in pairs if pair.reading == word]
        for word in ("better", "worse", "no clear difference", "cannot tell")
    }
    unclear = _unclear(said["no clear difference"])
    if said["better"] and said["worse"]:
        return (
            f"{where}, the measures disagree about {arm.name} and {name}: {arm.name} is better by "
            f"{_list(said['better'])}, and worse by {_list(said['worse'])}{unclear}."
        )
    for word in ("better", "worse"):
        if said[word]:
            return f"{where}, {arm.name} is {word} than {name}: {_list(said[word])}{unclear}."
    if said["no clear difference"]:
        return (
            f"{where}, no clear difference between {arm.name} and {name} was seen: "
            f"{_list(said['no clear difference'])}."
        )
    if not pairs:
        why = "no measure of test rows has both"
    else:
        why = "; ".join(
            f"{pair.measure.lowered_label}: {why_not_told(pair.difference, pair.is_silent)}"
            for pair in said["cannot tell"]
        )
    return f"{where}, these runs cannot tell whether {arm.name} is better than {name} ({why})."


def _list(pairs: Sequence[Compared]) -> str:
    return "; ".join(pair.words() for pair in pairs)


def _unclear(pairs: Sequence[Compared]) -> str:
    """Return the measures that show no clear difference, where others do."""
    labels = " and ".join(pair.measure.lowered_label for pair in pairs)
    return f"; no clear difference in {labels}" if labels else ""
