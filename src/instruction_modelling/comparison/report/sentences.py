"""What a report's numbers say, in sentences that claim no more than the intervals do."""

from typing import Any

from instruction_modelling.comparison.report.answer import reading, why_not_told
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.measures import LOSSES, MISSING, Measure, measures_of
from instruction_modelling.statistics import RESAMPLES

QUESTION = (
    "Should the training loss fall on the response alone (instruction tuning, IT), or reach over the "
    "instruction too (instruction modelling, IM)?"
)


def report_measures(data: ReportedDataSet, results: dict[str, Any]) -> list[Measure]:
    """Return the measures that the tables show."""
    arms = results["arms"].values()
    return [
        measure
        for measure in measures_of(run for arm in data.arms for run in arm.runs)
        if measure.shown == "always"
        or (measure.shown == "where measured" and any(stats.get(measure.key) for stats in arms))
    ]


def difference_measures(data: ReportedDataSet, results: dict[str, Any]) -> list[Measure]:
    """Return the measures with a paired difference in some trained arm, losses first."""
    by_arm = [results["differences"].get(arm.name, {}) for arm in data.trained]
    paired = [
        measure
        for measure in report_measures(data, results)
        if measure.row_key and any(differences.get(measure.key) for differences in by_arm)
    ]
    return sorted(
        paired, key=lambda measure: LOSSES.index(measure.key) if measure.key in LOSSES else len(LOSSES)
    )


def interval_text(measure: Measure, difference: dict[str, Any]) -> str:
    """Return `95 % interval A to B`, and whether it covers 0."""
    if difference["low"] is None:
        return "too few rows for an interval"
    covers = ", which covers 0" if difference["covers_zero"] else ""
    return (
        f"95 % interval {measure.show_signed(difference['low'])} to {measure.show_signed(difference['high'])}"
        f"{covers}"
    )


def verdict_text(measure: Measure, difference: dict[str, Any], is_silent: bool = False) -> str:
    """Return what a difference says, with what weakens it.

    Args:
        is_silent: whether all values of both arms are 0.
    """
    word = reading(measure, difference, is_silent)
    if word == "cannot tell":
        return f"{word}: {why_not_told(difference, is_silent)}"
    if word == "no clear difference":
        return f"{word}: the interval covers\N{NO-BREAK SPACE}0"
    return f"{word}, but not in every seed" if difference["seeds_agree"] is False else word


def sign_convention(reference: str) -> str:
    """Return how to read a difference."""
    return (
        f"A difference is the arm's value minus {reference}'s on the same rows: below 0, the arm's value is "
        f"lower than {reference}'s; above 0, higher; where a measure has a better side, the reading says "
        "better or worse. The interval is a 95 % paired bootstrap over rows "
        f"({RESAMPLES:,} resamples, each row averaged over seeds first); it says how much the rows matter, "
        "not the seeds."
    )


def length_sentence(ratio: dict[str, Any] | None) -> str:
    """Return the sentence on the length ratio of the training data."""
    if ratio is None:
        return f"Length ratio of the training data: {MISSING} (give --train_file)."
    instruction, response = ratio["instruction_words"]["mean"], ratio["response_words"]["mean"]
    if ratio["ratio"] is None:
        return (
            f"The training data have {instruction:.1f} words of instruction a row and no words of response."
        )
    left_out = f", {ratio['bad_rows']} unusable left out" if ratio["bad_rows"] else ""
    return (
        f"Instructions are {ratio['ratio']:.2f} times as long as responses in the training data: "
        f"{instruction:.1f} against {response:.1f} words a row "
        f"({ratio['rows']} rows{left_out}; as the paper's Table 5 counts: each message's header is a word)."
        + (f" {ratio['counting']}" if ratio.get("counting") else "")
    )


def caveats(data: ReportedDataSet, results: dict[str, Any]) -> list[str]:
    """Return what the numbers of this data set cannot show, from the numbers themselves."""
    lines = []
    counts = {arm.name: len(arm.runs) for arm in data.trained}
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    if counts and min(counts.values()) < 3:
        lines.append(f"Few seeds ({shown}): how much a result changes from seed to seed is hardly known.")
    rows = _paired_test_rows(results)
    if rows is not None and rows < 500:
        lines.append(f"Few test rows ({rows}): small differences cannot be told from none.")
    if data.base is None:
        lines.append(
            "Without the base model as a control, a lower loss cannot be told from having moved less."
        )
    else:
        lines.append(
            "A lower loss on test responses can also mean that a model moved less from the base model; "
            "compare each arm with the base model's value."
        )
    return lines


def _paired_test_rows(results: dict[str, Any]) -> int | None:
    for differences in results["differences"].values():
        if differences.get("test_response_nll"):
            return int(differences["test_response_nll"]["rows"])
    return None
