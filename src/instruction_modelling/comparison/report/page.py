"""report.html, filled into page.html: one self-contained page, without scripts and without anything to load."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.comparison.report.groups import Arm, DataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.measures import MISSING, Measure
from instruction_modelling.comparison.report.provenance import facts, provenance_tables, shared_options
from instruction_modelling.comparison.report.table import caption
from instruction_modelling.comparison.report.words import (
    QUESTION,
    answer,
    caveats,
    difference_measures,
    interval_text,
    length_sentence,
    report_measures,
    sign_convention,
    verdict_text,
)
from instruction_modelling.pages.drawing import Picture
from instruction_modelling.pages.templates import render_page

if TYPE_CHECKING:
    from markupsafe import Markup

_SAMPLES = 6
_LONGEST_SAMPLE = 1500
_VERDICT = re.compile(r"\b(?:lower than|higher than|no clear difference|not answered|cannot be compared)\b")


def report_page(
    sets: Sequence[DataSet],
    results: dict[str, Any],
    looks: Mapping[str, Look],
    pictures: Mapping[str, Sequence[Picture]],
) -> str:
    """Return the page's HTML; `pictures` are the figures by data set name."""
    views = [
        _set_view(index, data, results["datasets"][data.name], looks, pictures[data.name])
        for index, data in enumerate(sets)
    ]
    return render_page(
        Path(__file__).parent,
        title=results["title"],
        note=results["note"],
        command=results["command"],
        question=QUESTION,
        sets=views,
        runs_count=sum(run["finished"] for run in results["runs"]),
    )


def _set_view(
    index: int, data: DataSet, results: dict[str, Any], looks: Mapping[str, Look], pictures: Sequence[Picture]
) -> dict[str, Any]:
    samples = _samples(data, looks)
    return {
        "name": data.name,
        "anchor": f"data-{index}-{re.sub(r'[^a-z0-9]+', '-', data.name.lower())}",
        "answer": [_stressed(sentence) for sentence in answer(data, results)],
        "length": length_sentence(results["length_ratio"]),
        "warnings": results["warnings"],
        "caption": caption(data),
        "arms": [{"name": arm.name, "colour": looks[arm.name].colour} for arm in data.arms],
        "rows": _measure_rows(data, results),
        "differences": _difference_rows(data, results),
        "reference": data.reference.name if data.reference else "",
        "compared": [
            {"name": arm.name, "colour": looks[arm.name].colour}
            for arm in data.arms
            if arm is not data.reference
        ],
        "convention": sign_convention(data.reference.name) if data.reference else "",
        "pictures": pictures,
        "samples": samples,
        "samples_note": _samples_note(data, len(samples)),
        "facts": facts(data),
        "tables": provenance_tables(data),
        "shared": shared_options(data),
        "caveats": caveats(data, results),
    }


def _stressed(sentence: str) -> "Markup":
    """The sentence, escaped, with its verdict in bold."""
    from markupsafe import Markup, escape

    return Markup(_VERDICT.sub(r"<strong>\g<0></strong>", str(escape(sentence)), count=1))


def _measure_rows(data: DataSet, results: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for measure in report_measures(data, results):
        cells = []
        for arm in data.arms:
            value, _, spread = measure.show_stat(
                results["arms"][arm.name].get(measure.key), len(arm.seeds)
            ).partition(" ")
            cells.append({"value": value, "spread": spread})
        better = f", {measure.better} is better" if measure.better else ""
        rows.append({"label": measure.label, "unit": measure.unit + better, "cells": cells})
    return rows


def _difference_rows(data: DataSet, results: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for measure in difference_measures(data, results):
        found = [
            results["differences"][arm.name].get(measure.key)
            for arm in data.arms
            if arm is not data.reference
        ]
        counts = sorted({known["rows"] for known in found if known})
        paired = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        rows.append(
            {
                "label": measure.label,
                "unit": f"{measure.difference_unit}, {paired} rows",
                "cells": [_difference_cell(measure, known) for known in found],
            }
        )
    return rows


def _difference_cell(measure: Measure, found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {"mean": MISSING, "interval": "", "reading": "", "is_clear": False}
    interval = interval_text(measure, found).removeprefix("95 % interval ").partition(",")[0]
    return {
        "mean": measure.show_signed(found["mean"]),
        "interval": interval,
        "reading": verdict_text(found),
        "is_clear": found["covers_zero"] is False,
    }


def _samples(data: DataSet, looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Rows spread evenly over the test file, with every arm's response (of its first seed that has any)."""
    by_arm = {arm.name: _responses(arm) for arm in data.arms}
    rows = sorted({row for responses in by_arm.values() for row in responses})
    picked = [rows[int((place + 0.5) * len(rows) / _SAMPLES)] for place in range(_SAMPLES)] if rows else []
    samples = []
    for row in dict.fromkeys(picked):
        records = {name: responses.get(row) for name, responses in by_arm.items()}
        known = next(record for record in records.values() if record)
        texts = [
            _text(name, record.get("response") if record else None, _remark(record), looks[name].colour)
            for name, record in records.items()
        ]
        samples.append(
            {
                "row": row,
                "id": known.get("id"),
                "instruction": _clipped(known.get("instruction") or ""),
                "prompt": _clipped(known.get("prompt") or ""),
                "reference": known.get("reference") or MISSING,
                "texts": texts,
            }
        )
    return samples


def _responses(arm: Arm) -> dict[int, dict[str, Any]]:
    found = (run.evaluations["test"].responses for run in arm.runs)
    return next((responses for responses in found if responses), {})


def _text(name: str, text: str | None, remark: str, colour: str) -> dict[str, Any]:
    if text is None:
        shown = MISSING
    else:
        shown = _clipped(text.strip()) or ("(only white space)" if text else "(empty)")
    return {
        "name": name,
        "colour": colour,
        "remark": remark,
        "missing": not (text or "").strip(),
        "text": shown,
    }


def _remark(record: dict[str, Any] | None) -> str:
    if record is None or record.get("response") is None:
        return ""
    if record.get("finished") is False:
        return "did not stop"
    return (
        "same as the reference"
        if record["response"].strip() == (record.get("reference") or "").strip()
        else ""
    )


def _clipped(text: str) -> str:
    left_out = len(text) - _LONGEST_SAMPLE
    return text if left_out <= 0 else f"{text[:_LONGEST_SAMPLE]} […, {left_out} more characters]"


def _samples_note(data: DataSet, count: int) -> str:
    several = any(len(arm.runs) > 1 for arm in data.trained)
    seeds = " Of an arm with several seeds, the first one's." if several else ""
    return f"{count} test rows spread evenly over the file, chosen by position and not by content.{seeds}"
