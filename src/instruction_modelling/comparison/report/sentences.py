"""What a report's numbers say, in sentences that claim no more than the intervals do."""

from typing import Any

from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.measures import LOSSES, MEASURES, MISSING, Measure, measures_of
from instruction_modelling.statistics import RESAMPLES

QUESTION = (
    "Should the training loss fall on the response alone (instruction tuning, IT), or reach over the "
    "instruction too (instruction modelling, IM)?"
)
# Where both arms have a lower mean score than this, too few answers reach the score to tell the arms apart.
_LEAST_SCORE = 0.05
_BY_KEY = {measure.key: measure for measure in MEASURES}


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


def verdict_text(difference: dict[str, Any]) -> str:
    """Return the verdict, with what weakens it."""
    verdict = difference["verdict"]
    if difference["covers_zero"] is None:
        return f"{verdict}: too few rows"
    if difference["covers_zero"]:
        return f"{verdict}: the interval covers\N{NO-BREAK SPACE}0"
    return f"{verdict}, but not in every seed" if difference["seeds_agree"] is False else verdict


def answer_sentences(data: ReportedDataSet, results: dict[str, Any]) -> list[str]:
    """Return this data set's answer to the question: a sentence on the loss, one on the task score."""
    arm, reference = data.contrast, data.reference
    if arm is None or reference is None:
        lacks = "an IT run" if reference is None else "a run of another arm"
        return [f"On {data.name} the question is not answered here: it takes {lacks} to compare with."]
    loss = _BY_KEY["test_response_nll"]
    scores = [_BY_KEY["exact_match"], _BY_KEY["token_f1"]]
    # Exact match of long responses, say, is near 0 whatever the arm: token F1 is the better witness then.
    reached = [
        score
        for score in scores
        if any(
            (results["arms"][name][score.key] or {}).get("mean", 0) >= _LEAST_SCORE
            for name in (arm.name, reference.name)
        )
    ]
    score = (reached or scores)[0]
    return [
        _comparison(data, results, loss, f"On {data.name}, {arm.name}'s {lowered(loss.label)}"),
        _comparison(data, results, score, f"Its {lowered(score.label)}"),
    ]


def lowered(label: str) -> str:
    """Return a label as it stands inside a sentence."""
    return label if label.startswith("BLEU") else label[:1].lower() + label[1:]


def _comparison(data: ReportedDataSet, results: dict[str, Any], measure: Measure, subject: str) -> str:
    assert data.contrast is not None and data.reference is not None
    arm, reference = data.contrast.name, data.reference.name
    arm_stat, reference_stat = (results["arms"][name][measure.key] for name in (arm, reference))
    if arm_stat is None or reference_stat is None:
        stats = ((arm, arm_stat), (reference, reference_stat))
        whose = " and ".join(name for name, stat in stats if stat is None)
        return f"{subject} cannot be compared: it is {MISSING} for {whose}."
    unit = " %" if measure.unit == "%" else ""
    values = f"{measure.show(arm_stat['mean'])}{unit} against {measure.show(reference_stat['mean'])}{unit}"
    values += "" if unit else f" {measure.unit}"
    base = results["arms"].get("base", {}).get(measure.key) if data.base else None
    control = f"; base {measure.show(base['mean'])}{unit}" if base else ""
    difference = results["differences"][arm].get(measure.key)
    if difference is None:
        values_in_words = f"{subject} was {values} for {reference}{control}"
        return f"{values_in_words}, without rows to pair, so no interval can be given."
    relation = {
        "lower": f"was lower than {reference}'s",
        "higher": f"was higher than {reference}'s",
        "no clear difference": f"showed no clear difference from {reference}'s",
    }[difference["verdict"]]
    doubt = ", though not in every seed" if "not in every seed" in verdict_text(difference) else ""
    points = f" {measure.difference_unit}" if unit else ""
    change = f"{arm} − {reference}: {measure.show_signed(difference['mean'])}{points}"
    return f"{subject} {relation}{doubt}: {values} ({change}, {interval_text(measure, difference)}{control})."


def sign_convention(reference: str) -> str:
    """Return how to read a difference."""
    return (
        f"A difference is the arm's value minus {reference}'s on the same rows: below 0, the arm's value is "
        f"lower than {reference}'s; above 0, higher. The interval is a 95 % paired bootstrap over rows "
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
