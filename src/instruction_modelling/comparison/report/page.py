"""report.html, filled into page.html: one self-contained page, without scripts and without anything to
load."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.comparison.report.answer import reading
from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.measures import MISSING, Measure
from instruction_modelling.comparison.report.provenance import (
    provenance_facts,
    provenance_tables,
    shared_options,
)
from instruction_modelling.comparison.report.samples import sample_rows, samples_note, samples_while_training
from instruction_modelling.comparison.report.sentences import (
    QUESTION,
    caveats,
    difference_measures,
    interval_text,
    length_sentence,
    report_measures,
    sign_convention,
    verdict_text,
)
from instruction_modelling.comparison.report.table import caption, counts_differ
from instruction_modelling.pages.drawing import Picture
from instruction_modelling.pages.templates import render_page

if TYPE_CHECKING:
    from markupsafe import Markup

# Words that stand only where a measure is clear.
_VERDICT = re.compile(r"\b(?:better than|worse than|disagree)\b")


def report_page(
    sets: Sequence[ReportedDataSet],
    results: dict[str, Any],
    looks: Mapping[str, Look],
    pictures: Mapping[str, Sequence[Picture]],
) -> str:
    """Return the page's HTML; `pictures` are the figures by data set name."""
    views = [
        {
            "anchor": f"data-{index}-{re.sub(r'[^a-z0-9]+', '-', data.name.lower())}",
            "pictures": pictures[data.name],
            **_set_view(data, results["datasets"][data.name], looks),
        }
        for index, data in enumerate(sets)
    ]
    return render_page(
        Path(__file__).parent,
        title=results["title"],
        note=results["note"],
        command=results["command"],
        pages=results.get("pages") or [],
        question=QUESTION,
        sets=views,
        runs_count=sum(run["finished"] for run in results["runs"]),
    )


def _set_view(data: ReportedDataSet, results: dict[str, Any], looks: Mapping[str, Look]) -> dict[str, Any]:
    samples = sample_rows(data, looks)
    return {
        "name": data.name,
        "answer": [_stressed(line) for line in results["answer"]],
        "length": length_sentence(results["length_ratio"]),
        "warnings": results["warnings"],
        "caption": caption(data),
        "arms": _arm_views(data.arms, looks),
        "rows": _measure_rows(data, results),
        "differences": _difference_rows(data, results),
        "reference": data.reference.name if data.reference else "",
        "compared": _arm_views(data.compared, looks),
        "convention": sign_convention(data.reference.name) if data.reference else "",
        "samples": samples,
        "samples_note": samples_note(data, len(samples)),
        "while_training": samples_while_training(data, looks),
        "facts": provenance_facts(data),
        "tables": provenance_tables(data),
        "shared": shared_options(data),
        "caveats": caveats(data, results),
    }


def _arm_views(arms: Sequence[ReportedArm], looks: Mapping[str, Look]) -> list[dict[str, str]]:
    return [{"name": arm.name, "colour": looks[arm.name].colour} for arm in arms]


def _stressed(sentence: str) -> "Markup":
    """Return the sentence, escaped, with its verdict in bold."""
    from markupsafe import Markup, escape

    return Markup(_VERDICT.sub(r"<strong>\g<0></strong>", str(escape(sentence)), count=1))


def _measure_rows(data: ReportedDataSet, results: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for measure in report_measures(data, results):
        cells = []
        for arm in data.arms:
            stat = results["arms"][arm.name].get(measure.key)
            value, _, spread = measure.show_stat(stat, len(arm.seeds), counts_differ(data)).partition(" ")
            cells.append({"value": value, "spread": spread})
        better = f", {measure.better} is better" if measure.better else ""
        rows.append({"label": measure.label, "unit": measure.unit + better, "cells": cells})
    return rows


def _difference_rows(data: ReportedDataSet, results: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for measure in difference_measures(data, results):
        differences = [results["differences"][arm.name].get(measure.key) for arm in data.compared]
        counts = sorted({difference["rows"] for difference in differences if difference})
        paired = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        rows.append(
            {
                "label": measure.label,
                "unit": f"{measure.difference_unit}, {paired} rows",
                "cells": [
                    _difference_cell(measure, difference, _all_zero(results, (arm, data.reference), measure))
                    for arm, difference in zip(data.compared, differences, strict=True)
                ],
            }
        )
    return rows


def _all_zero(results: dict[str, Any], arms: Sequence[ReportedArm | None], measure: Measure) -> bool:
    stats = [results["arms"][arm.name].get(measure.key) for arm in arms if arm]
    return all(stat is not None and stat["mean"] == 0 for stat in stats)


def _difference_cell(measure: Measure, difference: dict[str, Any] | None, is_silent: bool) -> dict[str, Any]:
    if difference is None:
        return {"mean": MISSING, "interval": "", "reading": "", "is_clear": False}
    interval = interval_text(measure, difference).removeprefix("95 % interval ").partition(",")[0]
    return {
        "mean": measure.show_signed(difference["mean"]),
        "interval": interval,
        "reading": verdict_text(measure, difference, is_silent),
        "is_clear": reading(measure, difference, is_silent) not in ("cannot tell", "no clear difference"),
    }
