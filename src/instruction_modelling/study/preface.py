"""What docs/results.md says before its tables: what was tuned, for which seeds and rows, and measured how."""

from collections import defaultdict
from collections.abc import Sequence

from instruction_modelling.decision.options import REFERENCE, TREATMENT
from instruction_modelling.decision.runs import BASE
from instruction_modelling.progress import counted
from instruction_modelling.study.answer import interval_text
from instruction_modelling.study.grid import ELSEWHERE, HEALED, MARGIN, SEEDS, TEST
from instruction_modelling.study.reading import (
    DAGGER,
    CellReading,
    confirm,
    for_other_data,
    gain_contrast,
    made_anew,
)

NO_DIFFERENCE = "no difference that matters"


def preface_lines(readings: Sequence[CellReading]) -> list[str]:
    """Return what is to be known before the tables are read: what was tuned, which seeds the intervals are
    for, and which models were measured otherwise than they were trained."""
    return [
        "IT has the loss on responses only, IM on instructions too. One small model "
        f"(SmolLM2-135M-Instruct), {SEEDS} seeds an arm, each with training rows and an order of its own "
        "that all arms share; test rows that no model was trained on, nor on near-duplicates of them. "
        "Cells of one kind of rows share their test rows, and those of one size their training rows too, so "
        "their verdicts are not independent. Gains are the reference's mean loss minus the arm's, "
        f"in nats a response token (content and end), each row counting the same; less than {MARGIN:g} does "
        "not matter. How intervals and verdicts are made: [deciding.md](deciding.md); here the rows are as "
        "many as each cell says, and nothing is read before all seeds are there. What was expected before "
        "the runs ended: [LOG.md](LOG.md). The model's weights were restored from 4 bits, and training on "
        f"some text or other may mend them, instructions included{_mended(readings)}.",
        "",
        *_pools(readings),
        *_measured_otherwise(readings),
    ]


def _mended(readings: Sequence[CellReading]) -> str:
    """Return what as many steps on unrelated text alone do, where that was run."""
    for reading in readings:
        if reading.can_compare(HEALED, BASE):
            here, there = (interval_text(reading.decision(HEALED, BASE, part)) for part in (TEST, ELSEWHERE))
            return (
                f": as many steps on unrelated text alone ({HEALED}) gain {here} over the untuned model, "
                f"elsewhere {there}, in {reading.label}"
            )
    return ""


def _pools(readings: Sequence[CellReading]) -> list[str]:
    """Return how many rows seeds share, and so which other seeds the intervals are for."""
    shares = defaultdict[int, list[float]](list)
    for reading in readings:
        if reading.protocol:
            shares[reading.cell.train_rows].append(reading.shared_rows)
    if not shares:
        return []
    of_cells = ", ".join(
        f"{min(of):.0%}{f' to {max(of):.0%}' if max(of) > min(of) else ''} with {rows} rows"
        for rows, of in sorted(shares.items())
    )
    return [
        "The intervals are for other seeds of the same pool of rows. Seeds draw from one pool, so that two "
        f"of them share rows ({of_cells}), and they differ by less than seeds of another pool would. For "
        "other data of the same kind [the table](#what-was-asked-beforehand) has the largest half-width to "
        f"expect, which takes seeds to differ by their training rows alone{_with_it(readings)}.",
        "",
    ]


def _with_it(readings: Sequence[CellReading]) -> str:
    """Return in how many comparisons no difference that matters is left by the intervals for other data."""
    told = [one for one in confirm(readings) if one.decision]
    wide = sum(for_other_data(one)[1] == NO_DIFFERENCE for one in told)
    narrow = sum(one.decision.verdict == NO_DIFFERENCE for one in told if one.decision)
    if not told:
        return ""
    return (
        f"; with it {wide} of the {counted(len(told), 'comparison')} say that there is no difference "
        f"that matters, where {narrow} do with seeds of these pools"
    )


def _measured_otherwise(readings: Sequence[CellReading]) -> list[str]:
    """Return which models were measured by other weights than their training's products saw."""
    if not any(reading.is_measured_otherwise for reading in readings):
        return []
    changes = "; ".join(
        f"in {first.label} by {gain_contrast(second, first)}, elsewhere by "
        f"{gain_contrast(second, first, ELSEWHERE)}"
        for first, second in made_anew(readings)
        if first.is_measured_otherwise
    )
    anew = f" Made anew, {TREATMENT}'s gain over {REFERENCE} changes {changes} (95 %)." if changes else ""
    return [
        f"{DAGGER}: these models were trained with products in bfloat16 and measured by their float32 "
        "weights. Products saw the weights rounded, so what was measured is not quite what was trained (the "
        f"cause is in [LOG.md](LOG.md)).{anew} With short instructions one seed of 64 rows was made anew, "
        "and was the same ([LOG.md](LOG.md); it is not among the records). Verdicts near the margin may hang "
        "on it. Runs that are made anew are saved, and measured, as their products saw them.",
        "",
    ]
