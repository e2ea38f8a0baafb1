"""What docs/results.md says of the controls, and of cells that were made anew."""

from collections.abc import Sequence
from pathlib import Path

from instruction_modelling.decision.matching import read_matches, unreachable
from instruction_modelling.decision.options import REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.study.answer import OF_CONTROL, interval_text, products_of
from instruction_modelling.study.grid import (
    ADDED,
    ELSEWHERE,
    HEALED,
    MATCHED,
    OTHER_TEXTS,
    SEEDS,
    TEST,
    confidence,
)
from instruction_modelling.study.reading import (
    CellReading,
    Confirmed,
    confirm,
    gain_contrast,
    loss_contrast,
    made_anew,
)


def control_lines(readings: Sequence[CellReading], results: Path) -> list[str]:
    """Return what the controls say: the confirmed one of every cell, the others, and cells made anew."""
    return [*_confirmed(confirm(readings)), *_others(readings, results), *_anew(readings)]


def _confirmed(confirmed: Sequence[Confirmed]) -> list[str]:
    lines = []
    for one in confirmed:
        if one.hypothesis.name != "H2" or one.decision is None:
            continue
        says, reading = OF_CONTROL[one.decision.verdict], one.reading
        text = f"- {reading.label}: {says} (IM against reweighted-IT {interval_text(one.decision)})."
        there = reading.decision(one.hypothesis.arm, one.hypothesis.reference, ELSEWHERE)
        text += f" Elsewhere IM gains {interval_text(there)} over that control (exploratory)."
        if reading.can_compare(REWEIGHTED, REFERENCE):
            alone = reading.decision(REWEIGHTED, REFERENCE)
            text += f" Reweighting alone gains {interval_text(alone)} over IT (exploratory)."
        if reading.can_compare(ADDED, REFERENCE):
            added = reading.decision(ADDED, REFERENCE)
            text += (
                f" A loss on instructions that takes nothing from the responses ({ADDED}) gains "
                f"{interval_text(added)} over IT (exploratory)."
            )
        lines.append(text)
    return lines or ["No cell has the control's runs yet."]


def _others(readings: Sequence[CellReading], results: Path) -> list[str]:
    """Return what IM gains over the arms that have another text in place of the instruction, or end where it
    does, or whose responses weigh as little where that is not confirmed; of those that are recorded."""
    lines = []
    for reading in readings:
        name, texts = reading.label, list[str]()
        is_confirmed = any(hypothesis.reference == REWEIGHTED for hypothesis in reading.cell.hypotheses)
        for arm in (*(() if is_confirmed else (REWEIGHTED,)), *OTHER_TEXTS, *MATCHED):
            if reading.can_compare(TREATMENT, arm):
                texts.append(f"{arm} {_here_and_there(reading, TREATMENT, arm)}")
        if texts:
            of = "[further controls](deciding.md#the-controls)"
            lines.append(f"- {name}, IM against {of} (exploratory): {'; '.join(texts)}.")
        beside = [
            f"{arm} {_here_and_there(reading, arm, REWEIGHTED)}"
            for arm in OTHER_TEXTS
            if arm != HEALED and reading.can_compare(arm, REWEIGHTED)
        ]
        if beside:
            lines.append(
                f"- {name}, what a text beside the rows adds to {REWEIGHTED} (exploratory): "
                f"{'; '.join(beside)}; the row's own instruction before its response (IM) "
                f"{_here_and_there(reading, TREATMENT, REWEIGHTED)}."
            )
        for arm in (arm for arm in reading.cell.arms if arm.startswith("IM-w")):
            others = [
                f"{other} {_here_and_there(reading, arm, other)}"
                for other in (TREATMENT, REFERENCE, REWEIGHTED)
                if reading.can_compare(arm, other)
            ]
            if others:
                lines.append(f"- {name}, {arm} against others (exploratory): {'; '.join(others)}.")
        for arm, matches in read_matches(results / "runs" / reading.cell.name).items():
            steps = [match.steps for match in matches.values() if match.steps is not None]
            why = unreachable(matches, SEEDS)
            words = f"is {why}" if why else f"ends after {min(steps)} to {max(steps)} steps"
            lines.append(f"- {name}: {arm} {words}.")
    return lines


def _here_and_there(reading: CellReading, arm: str, reference: str) -> str:
    here, there = (reading.decision(arm, reference, part) for part in (TEST, ELSEWHERE))
    return f"{interval_text(here)}, elsewhere {interval_text(there)}"


def _anew(readings: Sequence[CellReading]) -> list[str]:
    """Return what became of IT and IM in a cell that has the rows, steps and settings of another one and was
    made anew, as the study's exploratory cells are."""
    lines = []
    for first, second in made_anew(readings):
        changes = [loss_contrast(arm, second, first) for arm in (REFERENCE, TREATMENT)]
        again = second.decision(TREATMENT, REFERENCE, sure=confidence())
        lines.append(
            f"- {second.label} has {REFERENCE} and {TREATMENT} of {first.label} once more, trained with "
            f"products in {products_of(second)} ({first.label}: {products_of(first)}), on another machine "
            f"or with other versions too. {REFERENCE}'s loss changes by {changes[0]}, {TREATMENT}'s by "
            f"{changes[1]}, {TREATMENT}'s gain over {REFERENCE} by {gain_contrast(second, first)}, "
            f"elsewhere by {gain_contrast(second, first, ELSEWHERE)}. Read as a confirmed comparison is, by "
            f"an interval of {confidence():.2%}: {again.verdict} ({interval_text(again)}). All of this is "
            "exploratory."
        )
    return lines
