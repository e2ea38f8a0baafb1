"""The report's tables in Markdown: one for each data set, with its units in a caption, and the command
below."""

from collections.abc import Sequence
from typing import Any

from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.measures import MISSING, Measure
from instruction_modelling.comparison.report.sentences import (
    difference_measures,
    length_sentence,
    report_measures,
)


def caption(data: ReportedDataSet) -> str:
    """Return the caption of a data set's table: what its columns and numbers are."""
    names = {
        "base": "base: the model before tuning",
        "IT": "IT: loss on the responses alone",
        "IM": "IM: loss on the instructions too",
    }
    families = {arm.family for arm in data.arms}
    arms = [text for family, text in names.items() if family in families]
    if any(family.startswith("IM w=") for family in families):
        arms.append("IM w=x: instruction tokens weigh x")
    if any("[" in family for family in families):
        arms.append("[kind=x]: tokens of that kind weigh x")
    return (
        f"{'; '.join(arms)}. Losses are nats per token, mean over rows; exact match, token F1 and stop rate "
        "(responses that ended with an end token) are percentages of test rows; BLEU is the mean over "
        f"responses. {_spread(data)}“{MISSING}” was not measured."
    ).lstrip(". ")


def counts_differ(data: ReportedDataSet) -> bool:
    """Return whether the arms have different numbers of seeds, which the table then shows."""
    return len({len(arm.seeds) for arm in data.trained}) > 1


def _spread(data: ReportedDataSet) -> str:
    """Return what is written behind a mean: nothing for one seed."""
    if counts_differ(data):
        return "Values are mean ± standard deviation over seeds (number of runs); "
    seeds = max((len(arm.seeds) for arm in data.trained), default=1)
    return f"Values are mean ± standard deviation over {seeds} seeds; " if seeds > 1 else "One seed; "


def markdown_table(data: ReportedDataSet, results: dict[str, Any]) -> str:
    """Return one data set's table: a row for each measure, a column for each arm, differences last."""
    lines = [
        f"### {_cell(data.name)}",
        "",
        *(f"- {_cell(line)}" for line in results["answer"]),
        "",
        f"*{caption(data)}*",
        "",
        _line(["measure", *(arm.name for arm in data.arms)]),
        "|---|" + "---:|" * len(data.arms),
    ]
    for measure in report_measures(data, results):
        stats = [
            measure.show_stat(results["arms"][arm.name].get(measure.key), len(arm.seeds), counts_differ(data))
            for arm in data.arms
        ]
        lines.append(_line([f"{measure.label} ({measure.unit})", *stats]))
    if data.reference:
        for measure in difference_measures(data, results):
            cells = [_difference(measure, arm, data.reference, results) for arm in data.arms]
            label = (
                f"{measure.label}, arm − {data.reference.name} [95 % interval] ({measure.difference_unit})"
            )
            lines.append(_line([label, *cells]))
    lines += ["", length_sentence(results["length_ratio"])]
    lines += ["", *(f"- {_cell(warning)}" for warning in results["warnings"])] if results["warnings"] else []
    return "\n".join(lines)


def markdown_report(sets: Sequence[ReportedDataSet], results: dict[str, Any]) -> str:
    """Return table.md: the title, the note, a table for each data set, and the command that made it."""
    parts = [f"## {_cell(results['title'])}"]
    parts += [f"> {_cell(results['note'])}"] if results["note"] else []
    parts += [markdown_table(data, results["datasets"][data.name]) for data in sets]
    return "\n\n".join([*parts, f"Made by:\n\n```\n{results['command']}\n```"]) + "\n"


def _difference(measure: Measure, arm: ReportedArm, reference: ReportedArm, results: dict[str, Any]) -> str:
    if arm is reference:
        return "0 (reference)"
    difference = results["differences"][arm.name].get(measure.key)
    if difference is None:
        return MISSING
    mean = measure.show_signed(difference["mean"])
    if difference["low"] is None:
        return mean
    return f"{mean} [{measure.show_signed(difference['low'])}, {measure.show_signed(difference['high'])}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Return the text so that it cannot break out of its cell."""
    return (
        " ".join(text.split())
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("`", "\\`")
    )
