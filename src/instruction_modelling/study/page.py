"""docs/results.md, written from the records alone: the same records, the same page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instruction_modelling.decision.options import REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.runs import BASE
from instruction_modelling.decision.tuning import TUNED_REFERENCE, TUNED_TREATMENT
from instruction_modelling.decision.verdict import Decision
from instruction_modelling.files.whole import write_text
from instruction_modelling.pages.drawing import Drawing, drawing_style, new_figure, save_files
from instruction_modelling.progress import counted
from instruction_modelling.study.answer import answer_lines, interval_text
from instruction_modelling.study.claims import bleu_words, claims_of
from instruction_modelling.study.controls import control_lines
from instruction_modelling.study.grid import (
    CUT,
    EARLIER,
    ELSEWHERE,
    ELSEWHERE_ROWS,
    HEALED,
    MARGIN,
    READ_BEFORE,
    TEST,
    TRAINED_ROWS,
    StudyCell,
    confidence,
    family_size,
)
from instruction_modelling.study.made import made_lines, not_run_lines
from instruction_modelling.study.preface import NO_DIFFERENCE, preface_lines
from instruction_modelling.study.reading import (
    DAGGER,
    CellReading,
    Confirmed,
    confirm,
    elsewhere_decision,
    for_other_data,
    read_cells,
    trained_difference,
)

FIGURE = "gains"
_COLOURS = {"helps": "#2a7f9e", "hurts": "#b3402a", NO_DIFFERENCE: "#6a9a3b", "cannot tell": "#8a8f98"}
_GUIDE = (
    "Points are gains with simultaneous intervals, ticks the seeds; the band is what does not matter. Green: "
    "no difference that matters; grey: cannot tell; blue: helps; red: hurts."
)
# The other corpus's rows are as short as this, whatever the cell's are.
_SHORT = StudyCell("elsewhere", "lima", 0).max_tokens


_ARMS = (
    f"Arms: IT, the loss on responses; IM, on instructions too, each token counting the same; {REWEIGHTED}, "
    "IT whose response tokens weigh as little as under IM; IM-response, IM whose response tokens weigh as "
    "much as under IT; IM-w0.1, IM whose instruction tokens weigh a tenth; tuned-, the best of six "
    "settings; KL, IT with a KL term of weight 1 to the untuned model; NEFTune, IT with noise in its "
    f"embeddings, IM+NEFTune, IM with it; others-, unrelated-, permuted-beside, {REWEIGHTED} with another "
    "text beside each row, as a document of its own (instructions of other rows, Python's help, the row's "
    f"instruction with its words in random order); {HEALED}, the untuned model after as many steps on "
    "Python's help alone.",
)


def write_results(results: Path, page: Path) -> Path:
    """Write the page, and its picture beside the records; return the page's path."""
    readings = read_cells(results)
    confirmed = confirm(readings)
    if any(one.decision for one in confirmed):
        with drawing_style():
            save_files(_drawing(confirmed), results)
    write_text(page, page_text(results))
    return page


def page_text(results: Path) -> str:
    """Return the page that the records in a folder lead to.

    Raises:
        UserError: a record cannot be read, or arms of a seed are not alike.
    """
    readings = read_cells(results)
    confirmed = confirm(readings)
    done = [one for one in confirmed if one.decision]
    lines = [
        "# What a loss on the instruction does to a small model",
        "",
        *answer_lines(readings, confirmed),
        "",
    ]
    lines += preface_lines(readings)
    if done:
        lines += ["## What was asked beforehand", "", *_confirmed_table(confirmed), "", *_how_to_read(done)]
        lines += [f"![Gains with their intervals](results/{FIGURE}.png)", "", _guide(done), ""]
        lines += ["## What the controls say", "", *control_lines(readings, results), ""]
        lines += ["## Losses of every arm", "", *_loss_table(readings), ""]
    lines += ["## The paper's claims", "", *_claims_table(readings, results), ""]
    lines += ["## What was not run", "", *not_run_lines(readings), ""]
    lines += ["## How it was made", "", *made_lines(readings), ""]
    for folder, words in EARLIER.items():
        lines += _earlier(results / folder, words)
    return "\n".join(lines).rstrip() + "\n"


def _confirmed_table(confirmed: Sequence[Confirmed]) -> list[str]:
    lines = [
        f"| cell | comparison | rows | gain | {confidence():.2%} interval | half-width | for other data | "
        "Holm p | verdict |",
        "|---|---|--:|--:|---|--:|--:|--:|---|",
    ]
    for one in confirmed:
        name = f"{one.hypothesis.name}: {one.hypothesis.arm} against {one.hypothesis.reference}"
        if one.decision is None or one.decision.gain is None:
            state = "cut for time" if one.reading.cell.name in CUT else "not run yet"
            lines.append(f"| {one.reading.label} | {name} | | | | | | | {state} |")
            continue
        low, high = one.decision.interval or (0.0, 0.0)
        wider = for_other_data(one)[0]
        lines.append(
            f"| {one.reading.label} | {name} | {one.decision.gain.rows} | {one.decision.mean:+.3f} | "
            f"{low:+.3f} to {high:+.3f} | {(high - low) / 2:.3f} | {wider:.3f} | {one.p_value:.2g} | "
            f"{one.decision.verdict}{_needed(one.decision)} |"
        )
    return lines


def _needed(decision: Decision) -> str:
    """Return what it would take to tell, where it cannot be told: seeds on these rows, or rows with these
    seeds, if the mean and the variances are what they seem."""
    if decision.verdict != "cannot tell":
        return ""
    ways = zip(decision.needed(), ("seeds", "rows"), strict=True)
    needed = [f"about {count:,} {of}" for count, of in ways if count is not None]
    return f"; it would take {' or '.join(needed)}" if needed else "; neither seeds nor rows alone would do"


def _earlier(folder: Path, words: str) -> list[str]:
    """Return what an earlier study has found, by its own records; nothing where there are none."""
    confirmed = confirm(read_cells(folder))
    told = [one for one in confirmed if one.decision]
    if not told:
        return []
    total = sum(reading.recorded for reading in {id(one.reading): one.reading for one in confirmed}.values())
    return [
        "## An earlier, smaller study",
        "",
        f"The same grid was begun before {words}: {counted(total, 'run')} in `docs/results/{folder.name}/`, "
        f"all that {len(told)} of its {family_size()} comparisons take. Its protocol is another, and its "
        "rows are among those above, so it is no second sample: each study has its own 5 % of error, and the "
        "better of two verdicts would have more.",
        "",
        *_confirmed_table(told),
        "",
    ]


def _how_to_read(done: Sequence[Confirmed]) -> list[str]:
    return [
        f"{family_size()} comparisons were fixed beforehand, and {len(done)} are read; everything else on "
        "this page is exploratory. Their intervals are to hold together with 95 % (Bonferroni over all of "
        "them), for other seeds of the same pools and other test rows; simulated with variances like these, "
        "single ones held in 99.1 to 99.7 % ([LOG.md](LOG.md)), so together in no less than about 93 %. Half "
        "the interval's width is the smallest gain that would be told from none with this much variance. A "
        "comparison is "
        f"read when both its arms have every seed, and not before. {READ_BEFORE}",
        "",
        "H1: does IM do better than IT? H2: than IT whose response tokens weigh as little as under IM? H3: "
        "does the best of six settings of IM do better than the best of six of IT? Both were chosen on "
        "validation rows with a seed of its own. A setting of IM ties a weight to a learning rate and a "
        "number of passes (`decision/tuning.py`), so a weight is not chosen by itself. By cost H3 is asked "
        "of 64 rows alone, and nothing but H1 of LIMA. What a comparison that cannot tell would take is in "
        "its row; more seeds for it would be a study of its own.",
        "",
    ]


def _loss_table(readings: Sequence[CellReading]) -> list[str]:
    lines = [
        "Mean loss, nats a response token: on test rows, elsewhere (rows of LIMA for cells of Dolly-3k, and "
        f"the other way round, at most {ELSEWHERE_ROWS} of at most {_SHORT} tokens), and on the first "
        f"{TRAINED_ROWS} rows that the model was trained on. Exploratory, with 95 % intervals.",
        "",
        *_ARMS,
        *_settings_lines(readings),
        "",
        "| cell | arm | test | gain over IT | over untuned | elsewhere | gain over IT there | over untuned "
        "there | trained on |",
        "|---|---|--:|---|---|--:|---|---|--:|",
    ]
    for reading in readings:
        for arm in reading.whole if len(reading.whole) > 1 else ():
            test, other = reading.losses(arm, TEST).mean(), reading.losses(arm, ELSEWHERE).mean()
            is_compared = arm not in (REFERENCE, BASE) and reading.can_compare(REFERENCE)
            gains = ["", ""]
            if is_compared:
                gains = [interval_text(reading.decision(arm, REFERENCE, part)) for part in (TEST, ELSEWHERE)]
            untuned = ["", ""]
            if arm != BASE and reading.can_compare(BASE):
                untuned = [interval_text(reading.decision(arm, BASE, part)) for part in (TEST, ELSEWHERE)]
            trained = "" if arm in (BASE, HEALED) else f"{np.mean(reading.trained(arm)):.3f}"
            lines.append(
                f"| {reading.label} | {'untuned' if arm == BASE else arm} | {test:.3f} | {gains[0]} | "
                f"{untuned[0]} | {other:.3f} | {gains[1]} | {untuned[1]} | {trained} |"
            )
    for reading in readings:
        if reading.can_compare(REFERENCE, TREATMENT):
            trained_by, there = trained_difference(reading), elsewhere_decision(reading)
            lines += [
                "",
                f"{reading.label}: on rows they were trained on, IM's loss minus IT's is "
                f"{trained_by.mean:+.3f} ({trained_by.low:+.3f} to {trained_by.high:+.3f}); elsewhere IM "
                f"gains "
                f"{interval_text(there)}.",
            ]
    return lines


def _settings_lines(readings: Sequence[CellReading]) -> list[str]:
    """Return which settings the tuned arms have, by cell; nothing where none is recorded."""
    texts = []
    for reading in readings:
        for arm in (TUNED_REFERENCE, TUNED_TREATMENT):
            record = next(filter(None, reading.records.get(arm, [])), None)
            if record:
                texts.append(f"{reading.cell.name} {arm} `{record.flags}`")
    if not texts:
        return []
    same = "where they are IT's own, tuned-IT is IT once more"
    return ["", f"Settings chosen on the validation rows ({same}): {'; '.join(texts)}."]


def _claims_table(readings: Sequence[CellReading], results: Path) -> list[str]:
    of_bleu = bleu_words(results)
    lines = [
        "Exploratory: each has a 95 % interval of its own. A claim held where the whole interval is above "
        f"0, by less than matters where it is below {MARGIN:g} too. It did not hold where the whole "
        f"interval is below 0, or where it has 0 in it and is within {MARGIN:g} of it (no difference that "
        "matters). Else it cannot be told.",
        "",
        "| claim | at this size | by |",
        "|---|---|---|",
    ]
    return lines + [
        f"| {claim.text} | {claim.standing} | {claim.figures} |" for claim in claims_of(readings, of_bleu)
    ]


def _drawing(confirmed: Sequence[Confirmed]) -> Drawing:
    told = [one for one in confirmed if one.decision]
    figure, (axes,) = new_figure(1.2 + 0.36 * len(told))
    axes.axvspan(-MARGIN, MARGIN, color=_COLOURS["cannot tell"], alpha=0.15, linewidth=0)
    axes.axvline(0, color="#1b1d21", linewidth=0.8)
    labels = []
    for row, one in enumerate(told):
        assert one.decision and one.decision.interval
        colour = _COLOURS[one.decision.verdict]
        axes.plot(one.decision.interval, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
        seeds = one.decision.by_seed
        axes.plot(seeds, [row] * len(seeds), "|", color=colour, markersize=7, alpha=0.6)
        axes.plot([one.decision.mean], [row], "o", color=colour, markersize=6)
        labels.append(f"{one.reading.label}: {one.hypothesis.arm} − {one.hypothesis.reference}")
    axes.set_yticks(range(len(told)), labels)
    axes.set_ylim(len(told) - 0.4, -0.6)
    axes.set_xlabel("gain, nats a response token (right: IM is better)")
    guide = _guide(told)
    return Drawing(FIGURE, "What a loss on the instruction gains", guide, guide, figure)


def _guide(told: Sequence[Confirmed]) -> str:
    """Return how the picture is read."""
    is_marked = any(one.reading.is_measured_otherwise for one in told)
    return _GUIDE + (f" {DAGGER}: measured otherwise than trained, see above." if is_marked else "")
