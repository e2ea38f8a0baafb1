"""docs/results.md, written from the records alone: the same records, the same page."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from instruction_modelling.decision.matching import read_matches, unreachable
from instruction_modelling.decision.options import REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.runs import BASE
from instruction_modelling.decision.tuning import TUNED_REFERENCE, TUNED_TREATMENT
from instruction_modelling.files.whole import write_text
from instruction_modelling.pages.drawing import Drawing, drawing_style, new_figure, save_files
from instruction_modelling.progress import counted, duration
from instruction_modelling.study.answer import OF_CONTROL, answer_lines, interval_text
from instruction_modelling.study.claims import claims_of
from instruction_modelling.study.grid import (
    EARLIER,
    ELSEWHERE,
    EXTRAS,
    MARGIN,
    MATCHED,
    OTHER_TEXTS,
    SEEDS,
    TEST,
    confidence,
    family_size,
)
from instruction_modelling.study.reading import (
    CellReading,
    Confirmed,
    confirm,
    elsewhere_decision,
    gain_contrast,
    loss_contrast,
    read_cells,
    trained_difference,
)

FIGURE = "gains"
COMMAND = "bash scripts/study.sh --dolly alpagasus_3k_dolly.jsonl --lima lima_data.jsonl"
_COLOURS = {
    "helps": "#2a7f9e",
    "hurts": "#b3402a",
    "no difference that matters": "#6a9a3b",
    "cannot tell": "#8a8f98",
}
_GUIDE = (
    "Points are gains with simultaneous intervals, ticks the seeds; the band is what does not matter. Green: "
    "no difference that matters; grey: cannot tell; blue: helps; red: hurts."
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
    lines += _what(readings)
    if done:
        lines += ["## What is confirmed", "", *_confirmed_table(confirmed), "", *_how_to_read()]
        lines += [f"![Gains with their intervals](results/{FIGURE}.png)", "", _GUIDE, ""]
        lines += [
            "## What the control says",
            "",
            *_controls(confirmed),
            *_more_controls(readings, results),
            *_trained_anew(readings),
            "",
        ]
        lines += ["## Losses of every arm", "", *_loss_table(readings), ""]
    lines += ["## The paper's claims", "", *_claims_table(readings), ""]
    lines += ["## What was not run", "", *_not_run(readings), ""]
    lines += ["## How it was made", "", *_made(readings), ""]
    for folder, words in EARLIER.items():
        lines += _earlier(results / folder, words)
    return "\n".join(lines).rstrip() + "\n"


def _what(readings: Sequence[CellReading]) -> list[str]:
    return [
        f"One small model (SmolLM2-135M-Instruct), {SEEDS} seeds an arm, each with training rows and an "
        "order of its own that all arms share; test rows that no model was trained on, nor on "
        "near-duplicates of them. Gains are the reference's mean loss minus the arm's, in nats a response "
        "token (content and end), each row counting the same; less than "
        f"{MARGIN:g} does not matter. How intervals and verdicts are made: [deciding.md](deciding.md). What "
        "was expected before the runs ended: [LOG.md](LOG.md). The model's weights were restored from 4 "
        "bits, so training on any text may mend them, instructions included: gains over the untuned model, "
        "and those elsewhere, may be in part such mending.",
        "",
        *_measured_otherwise(readings),
    ]


def _measured_otherwise(readings: Sequence[CellReading]) -> list[str]:
    """Return which models were measured by other weights than their training's products saw."""
    cells = [
        reading.cell.name
        for reading in readings
        if any(
            all(words in record.key["flags"] for words in ("--mixed_precision bf16", "--save_dtype float32"))
            for of_arm in reading.records.values()
            for record in of_arm
            if record is not None and record.arm != BASE
        )
    ]
    if not cells:
        return []
    return [
        f"Models of {', '.join(cells)} were trained with products in bfloat16 and measured by their float32 "
        "weights. Products saw these rounded, so what was measured is not quite what was trained: with long "
        f"instructions that costs {REFERENCE} more than {TREATMENT}, and shows {TREATMENT} too good beside "
        "it (the last lines of [what the control says](#what-the-control-says), and [LOG.md](LOG.md)); a "
        "verdict near the margin may hang on it. Runs that are made anew are saved, and "
        "measured, as their products saw them.",
        "",
    ]


def _confirmed_table(confirmed: Sequence[Confirmed]) -> list[str]:
    lines = [
        f"| cell | comparison | rows | gain | {confidence():.2%} interval | Holm p | verdict | half of it |",
        "|---|---|--:|--:|---|--:|---|--:|",
    ]
    for one in confirmed:
        name = f"{one.hypothesis.name}: {one.hypothesis.arm} against {one.hypothesis.reference}"
        if one.decision is None or one.decision.gain is None:
            lines.append(f"| {one.reading.cell.name} | {name} | | | | | not run yet | |")
            continue
        low, high = one.decision.interval or (0.0, 0.0)
        lines.append(
            f"| {one.reading.cell.name} | {name} | {one.decision.gain.rows} | {one.decision.mean:+.3f} | "
            f"{low:+.3f} to {high:+.3f} | "
            f"{one.p_value:.2g} | {one.decision.verdict} | {(high - low) / 2:.3f} |"
        )
    return lines


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


def _how_to_read() -> list[str]:
    return [
        f"The study confirms {family_size()} comparisons, run or not; the intervals hold together with 95 % "
        "(Bonferroni), over seeds and rows: those tested on, which all seeds share. Each is read once, when "
        "both its arms have every seed. Half the interval is the smallest gain that could be told from none.",
        "",
    ]


def _controls(confirmed: Sequence[Confirmed]) -> list[str]:
    lines = []
    for one in confirmed:
        if one.hypothesis.name != "H2" or one.decision is None:
            continue
        says, interval = OF_CONTROL[one.decision.verdict], interval_text(one.decision)
        text = f"- {one.reading.cell.name}: {says} (IM against reweighted IT {interval})."
        there = one.reading.decision(one.hypothesis.arm, one.hypothesis.reference, ELSEWHERE)
        text += f" Elsewhere IM gains {interval_text(there)} over that control (exploratory)."
        if one.reading.can_compare("reweighted-IT", REFERENCE):
            alone = one.reading.decision("reweighted-IT", REFERENCE)
            text += f" Reweighting alone gains {interval_text(alone)} over IT (exploratory)."
        if one.reading.can_compare("IM-response", REFERENCE):
            added = one.reading.decision("IM-response", REFERENCE)
            text += (
                f" A loss on instructions that takes nothing from the responses gains {interval_text(added)} "
                "over IT (exploratory)."
            )
        lines.append(text)
    return lines or ["No cell has the control's runs yet."]


def _more_controls(readings: Sequence[CellReading], results: Path) -> list[str]:
    """Return what IM gains over the arms that have another text in place of the instruction, or end where it
    does, or whose responses weigh as little where that is not confirmed; of those that are recorded."""
    lines = []
    for reading in readings:
        name, texts = reading.cell.name, list[str]()
        is_confirmed = any(hypothesis.reference == REWEIGHTED for hypothesis in reading.cell.hypotheses)
        for arm in (*(() if is_confirmed else (REWEIGHTED,)), *OTHER_TEXTS, *MATCHED):
            if reading.can_compare(TREATMENT, arm):
                here, there = (reading.decision(TREATMENT, arm, part) for part in (TEST, ELSEWHERE))
                texts.append(f"{arm} {interval_text(here)}, elsewhere {interval_text(there)}")
        if texts:
            of = "[further controls](deciding.md#the-controls)"
            lines.append(f"- {name}, IM against {of} (exploratory): {'; '.join(texts)}.")
        for arm, matches in read_matches(results / "runs" / name).items():
            steps = [match.steps for match in matches.values() if match.steps is not None]
            why = unreachable(matches, SEEDS)
            words = f"is {why}" if why else f"ends after {min(steps)} to {max(steps)} steps"
            lines.append(f"- {name}: {arm} {words}.")
    return lines


def _trained_anew(readings: Sequence[CellReading]) -> list[str]:
    """Return what became of IT and IM in a cell that has the rows, steps and settings of another one and was
    run anew, as the study's exploratory cells are: what the number format of training or a machine does."""
    lines = []
    for first, second in combinations(readings, 2):
        alike = [(c.rows_name, c.train_rows, c.all_steps, c.with_clipping) for c in (first.cell, second.cell)]
        if alike[0] != alike[1] or not all(of.can_compare(REFERENCE, TREATMENT) for of in (first, second)):
            continue
        lower = [loss_contrast(arm, first, second) for arm in (REFERENCE, TREATMENT)]
        lines.append(
            f"- {second.cell.name} has {REFERENCE} and {TREATMENT} of {first.cell.name} once more, trained "
            f"with products in {_products(second)} ({first.cell.name}: {_products(first)}). There "
            f"{REFERENCE}'s loss is lower by {lower[0]}, {TREATMENT}'s by {lower[1]}, and so {TREATMENT}'s "
            f"gain over {REFERENCE} by {gain_contrast(first, second)} (exploratory)."
        )
    return lines


def _products(reading: CellReading) -> str:
    flags = {str(record.key["flags"]) for record in reading.records[TREATMENT] if record}
    half = {"--mixed_precision bf16" in of_seed for of_seed in flags}
    return " and ".join("bfloat16" if is_half else "float32" for is_half in sorted(half))


def _loss_table(readings: Sequence[CellReading]) -> list[str]:
    lines = [
        "Mean loss, nats a response token: on test rows, elsewhere (rows of LIMA for cells of Dolly-3k, and "
        "the other way round), and on rows that the model was trained on. Exploratory, with 95 % intervals.",
        *_settings_lines(readings),
        "",
        "| cell | arm | test | gain over IT | over untuned | elsewhere | gain over IT there | trained on |",
        "|---|---|--:|---|---|--:|---|--:|",
    ]
    for reading in readings:
        for arm in reading.whole if len(reading.whole) > 1 else ():
            test, other = reading.losses(arm, TEST).mean(), reading.losses(arm, ELSEWHERE).mean()
            is_compared = arm not in (REFERENCE, BASE) and reading.can_compare(REFERENCE)
            gains = ["", ""]
            if is_compared:
                gains = [interval_text(reading.decision(arm, REFERENCE, part)) for part in (TEST, ELSEWHERE)]
            untuned = "" if arm == BASE else interval_text(reading.decision(arm, BASE))
            trained = "" if arm == BASE else f"{np.mean(reading.trained(arm)):.3f}"
            lines.append(
                f"| {reading.cell.name} | {'untuned' if arm == BASE else arm} | {test:.3f} | {gains[0]} | "
                f"{untuned} | {other:.3f} | {gains[1]} | {trained} |"
            )
    for reading in readings:
        if reading.can_compare(REFERENCE, TREATMENT):
            trained_by, there = trained_difference(reading), elsewhere_decision(reading)
            lines += [
                "",
                f"{reading.cell.name}: on rows they were trained on, IM's loss minus IT's is "
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
    return ["", f"Settings chosen on the validation rows: {'; '.join(texts)}."] if texts else []


def _claims_table(readings: Sequence[CellReading]) -> list[str]:
    lines = [
        "Exploratory: each has a 95 % interval of its own. A claim held where that is above 0, by less than "
        f"matters where it is below {MARGIN:g} too.",
        "",
        "| claim | at this size | by |",
        "|---|---|---|",
    ]
    return lines + [f"| {claim.text} | {claim.standing} | {claim.figures} |" for claim in claims_of(readings)]


def _not_run(readings: Sequence[CellReading]) -> list[str]:
    lines = []
    for reading in readings:
        missing = [
            f"{arm} ({counted(sum(record is None for record in reading.records[arm]), 'seed')})"
            for arm in dict.fromkeys(
                [*reading.cell.arms, *(n for h in reading.cell.hypotheses for n in (h.reference, h.arm))]
            )
            if not reading.can_compare(arm)
        ]
        if missing:
            lines.append(f"- {reading.cell.name}: {', '.join(missing)}")
    if not lines:
        return ["Every cell has its runs."]
    return [
        "Cells are run in this order, what is confirmed of all of them first, and what stands here is "
        "missing; the same command goes on with it:",
        "",
        *lines,
        "",
        f"    {COMMAND}",
        "",
        f"With `--tune` it runs tuned arms, with `--more_arms` {', '.join(EXTRAS)} too; "
        "with `--other_keys keep` it leaves what other code has made. `--dry_run` prints what it takes, "
        "`--status` which runs are to come, `--only CELL` runs one cell.",
    ]


def _made(readings: Sequence[CellReading]) -> list[str]:
    records = [record for of in readings for of_arm in of.records.values() for record in of_arm if record]
    if not records:
        return [f"Nothing is recorded yet. The command: `{COMMAND}`."]
    machines = sorted({record.key["machine"]["gpu"] or record.key["machine"]["cpu"] for record in records})
    versions = sorted({f"{name} {v}" for record in records for name, v in record.key["versions"].items()})
    codes = sorted({record.key["code"] for record in records})
    seconds = sum(record.facts.get("seconds", 0.0) for record in records)
    flags = sorted({record.key["flags"] for record in records})
    threads = sorted({record.key["threads"] for record in records})
    dtypes = sorted({record.key["scoring_dtype"] for record in records})
    return [
        f"{counted(len(records), 'run')} are recorded in `docs/results/runs/`, each with the losses of its "
        f"rows and the key of what made it (code {', '.join(codes)}). Machine: {', '.join(machines)}; "
        f"{', '.join(versions)}; threads: {', '.join(threads)}; training took {duration(seconds)} of wall "
        f"time beside other jobs; losses in {', '.join(dtypes)}.",
        "",
        *(f"    {COMMAND}", ""),
        "Flags that all arms share, of each cell:",
        "",
        *(f"    {line}" for line in flags),
        "",
        "This page and its picture follow from the records: `python src/study.py --write_page`.",
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
        labels.append(f"{one.reading.cell.name}: {one.hypothesis.arm} − {one.hypothesis.reference}")
    axes.set_yticks(range(len(told)), labels)
    axes.set_ylim(len(told) - 0.4, -0.6)
    axes.set_xlabel("gain, nats a response token (right: IM is better)")
    return Drawing(FIGURE, "What a loss on the instruction gains", _GUIDE, _GUIDE, figure)
