"""The answer of docs/results.md: a sentence over all cells, and a line for each."""

from collections import Counter
from collections.abc import Sequence

from instruction_modelling.decision.options import REFERENCE, TREATMENT
from instruction_modelling.decision.verdict import Decision, Verdict
from instruction_modelling.progress import counted
from instruction_modelling.study.grid import CUT, StudyCell, confidence
from instruction_modelling.study.reading import CellReading, Confirmed, made_anew

# What can be said of H1 in a sentence, by its verdict.
_SAYS: dict[Verdict, str] = {
    "helps": "helps",
    "hurts": "hurts",
    "no difference that matters": "makes no difference that matters",
    "cannot tell": "may help, hurt or do neither",
}
# What can be said of H2, IM against IT whose responses weigh as little as under IM.
OF_CONTROL = {
    "helps": "what it does is not explained by reweighting the responses",
    "hurts": "reweighting the responses alone does better",
    "no difference that matters": "it differs from reweighting the responses alone by less than matters",
    "cannot tell": "whether it does more than reweighting the responses is left open",
}


def answer_lines(readings: Sequence[CellReading], confirmed: Sequence[Confirmed]) -> list[str]:
    """Return the answer, with which the page begins."""
    firsts = [one for one in confirmed if one.hypothesis.name == "H1"]
    told = [one for one in firsts if one.decision]
    if not told:
        total = sum(reading.recorded for reading in readings)
        return [f"No cell has all its runs yet ({counted(total, 'run')} recorded), so nothing is said."]
    text = (
        f"Over {counted(len(told), 'cell')}, a loss on the instruction {_tally(told)} (IM against IT, loss "
        "of unseen responses)"
    )
    controls = [one for one in confirmed if one.hypothesis.name == "H2" and one.decision]
    if controls:
        text += f"; against IT whose responses weigh as little as under IM, it {_tally(controls)}"
    text += "."
    names = [one.reading.cell.name for one in firsts if not one.decision]
    if cut := [name for name in names if name in CUT]:
        text += f" Cut for time: {', '.join(cut)}."
    missing = [name for name in names if name not in CUT]
    if missing:
        have = "has not all its" if len(missing) == 1 else "have not all their"
        text += (
            f" {counted(len(missing), 'cell')} of {len(firsts)} {have} runs yet, so this is a part of the "
            "answer."
        )
    anew = {first.cell.name: second for first, second in made_anew(readings)}
    return [text, "", *(_cell_line(one, confirmed, anew.get(one.reading.cell.name)) for one in told)]


def _tally(comparisons: Sequence[Confirmed]) -> str:
    """Return in how many cells each verdict was given, in words."""
    verdicts = Counter(one.decision.verdict for one in comparisons if one.decision)
    texts = [f"{says} in {verdicts[verdict]}" for verdict, says in _SAYS.items() if verdict in verdicts]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _cell_line(first: Confirmed, confirmed: Sequence[Confirmed], anew: CellReading | None) -> str:
    """Return what was found in a cell, by its H1 and, where that has its runs, its H2, and by the same made
    anew where its models were measured otherwise than they were trained."""
    assert first.decision
    cell = first.reading.cell
    says = f"it {_SAYS[first.decision.verdict]} ({interval_text(first.decision)} nats a response token)"
    text = f"- {first.reading.label}, {_described(cell)}: {says}"
    if control := _control_of(first, confirmed):
        text += f", and {control}"
    if anew and first.reading.is_measured_otherwise:
        again = anew.decision(TREATMENT, REFERENCE, sure=confidence())
        text += (
            f". Made anew in {products_of(anew)} ({anew.cell.name}, exploratory), it {_SAYS[again.verdict]} "
            f"({interval_text(again)})"
        )
    return f"{text}."


def _control_of(first: Confirmed, confirmed: Sequence[Confirmed]) -> str:
    """Return what H2 says in the cell of an H1, in words; nothing where it has not its runs."""
    for one in confirmed:
        if one.reading is first.reading and one.hypothesis.name == "H2" and one.decision:
            return f"{OF_CONTROL[one.decision.verdict]} ({interval_text(one.decision)})"
    return ""


def _described(cell: StudyCell) -> str:
    kind = {
        "-high": "with long instructions (at least as many words as the response)",
        "-low": "with short instructions (less than 0.3 of the response's words)",
    }
    rows = kind.get(cell.rows_name.removeprefix(cell.corpus), "of all lengths")
    corpus = {"dolly": "Dolly-3k", "lima": "LIMA"}[cell.corpus]
    return f"{cell.train_rows} rows of {corpus} {rows}, {cell.all_steps} steps"


def products_of(reading: CellReading) -> str:
    """Return the number format that IM was trained with."""
    flags = {str(record.key["flags"]) for record in reading.records[TREATMENT] if record}
    half = {"--mixed_precision bf16" in of_seed for of_seed in flags}
    return " and ".join("bfloat16" if is_half else "float32" for is_half in sorted(half))


def interval_text(decision: Decision) -> str:
    """Return a gain with its interval, as `+0.012 (-0.003 to +0.027)`, nats a response token."""
    low, high = decision.interval or (0.0, 0.0)
    return f"{decision.mean:+.3f} ({low:+.3f} to {high:+.3f})"
