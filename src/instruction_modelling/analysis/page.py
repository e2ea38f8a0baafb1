"""The analysis of files as one self-contained page, filled into page.html: no scripts, nothing to load."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.analysis.advisor import THIS_FILE
from instruction_modelling.analysis.text import (
    file_names,
    number,
    percent,
    position_text,
    prediction_text,
    published_once,
    signed,
    summary_groups,
)
from instruction_modelling.pages.templates import render_page

if TYPE_CHECKING:
    from instruction_modelling.analysis.analysis import Analysis

_ROWS_SHOWN = 10
_STANCES = {"for": "For IM", "against": "Against IM", "mixed": "Neither, or both", "caution": "Cautions"}


def analysis_page(analyses: "Sequence[Analysis]", command: str) -> str:
    """Return the page's HTML; `command` is the command line that made it."""
    from instruction_modelling.analysis.figures import draw_axes_of_the_paper, draw_gains

    files = [analysis.results for analysis in analyses]
    names = file_names(files)
    title = f"What is in {names[0]}" if len(names) == 1 else f"What is in these {len(names)} files"
    return render_page(
        Path(__file__).parent,
        title=title,
        command=command,
        names=names,
        groups=[
            (heading, [[label, *cells] for label, cells in rows]) for heading, rows in summary_groups(files)
        ],
        stances=_stances(files),
        axes=draw_axes_of_the_paper(names, files),
        gains=draw_gains(names, files),
        files=[
            _view(number_of_file, name, analysis)
            for number_of_file, (name, analysis) in enumerate(zip(names, analyses, strict=True))
        ],
    )


def _view(number_of_file: int, name: str, analysis: "Analysis") -> dict[str, Any]:
    from instruction_modelling.analysis.figures import draw_file

    results = analysis.results
    advice = results["advice"]
    position = (
        [position_text(advice) + "."]
        if advice["position"]
        else ["This set has no place on the paper's axes."]
    )
    anchor = f"file-{number_of_file}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"
    return {
        "name": name,
        "anchor": anchor,
        "path": results["path"],
        "sha256": results["sha256"],
        "in_brief": position + advice["in_brief"],
        "pictures": draw_file(anchor, analysis),
        "tables": _tables(results),
        "predicted": [prediction_text(known) + "." for known in advice["predictions"] if known["applies"]],
        "nearest": [_neighbour_row(known) for known in advice["nearest"]],
        "of_this_file": [
            {**caution, "of": "", "source": ""}
            for caution in advice["cautions"]
            if caution["source"] == THIS_FILE
        ],
        "arms": [[arm["name"], arm["reason"]] for arm in advice["arms"]],
        "commands": advice["commands"],
    }


def _neighbour_row(known: dict[str, Any]) -> list[str]:
    scores = [
        f"{known['it'][key]:.2f} → {known['im'][key]:.2f} ({signed(known['difference'][key], 2)})"
        for key in ("mean", "mt", "ae1", "ae2")
    ]
    return [known["name"], f"{known['ratio']:.3g}", number(known["rows"]), *scores]


def _stances(files: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What was published, by what it says of IM; named with the files it is told of where that is not all of
    them."""
    items = [
        {**item, "of": ", ".join(names) if len(names) < len(files) else ""}
        for key in ("findings", "cautions")
        for item, names in published_once(files, key)
    ]
    by_stance = [
        (title, [item for item in items if item["stance"] == stance]) for stance, title in _STANCES.items()
    ]
    return [(title, some) for title, some in by_stance if some]


def _tables(results: dict[str, Any]) -> list[dict[str, Any]]:
    turns, near, tokens = results["turns"], results["near_duplicates"], results["tokens"]
    tables = [
        {
            "label": "Roles",
            "head": ["role", "messages", "words a row"],
            "rows": [
                [role, number(count), number(results["words"]["by_role"].get(role, 0.0))]
                for role, count in turns["messages_by_role"].items()
            ],
        }
    ]
    if tokens:
        tables.append(
            {
                "label": "Tokens by kind, uncut",
                "head": ["kind", "tokens", "a row", "of all"],
                "rows": [
                    [
                        kind,
                        number(t["tokens"]),
                        number(t["mean"]),
                        percent(t["tokens"] / tokens["total"]["tokens"]),
                    ]
                    for kind, t in tokens["by_kind"].items()
                ],
            }
        )
    kinds = [
        ("same instruction", results["duplicates"]["instruction"]),
        ("same row", results["duplicates"]["row"]),
        ("same instruction, several outputs", results["duplicates"]["conflicting"]),
    ]
    if near:
        kinds.append(
            (
                f"near-duplicates ({near['of']}, Jaccard ≥ {near['threshold']:g} over "
                f"{near['shingle_words']}-word "
                "shingles)",
                near,
            )
        )
    repeated = [
        [what, number(group["groups"]), number(group["rows"]), number(group["extra_rows"]), _examples(group)]
        for what, group in kinds
        if group["groups"]
    ]
    if repeated:
        tables.append(
            {
                "label": "Rows that repeat others",
                "head": ["what", "groups", "rows", "beyond the first", "lines"],
                "rows": repeated,
            }
        )
    bad = [*results["bad_rows"]["listed"], *(tokens["refused_rows"]["listed"] if tokens else [])]
    if bad:
        tables.append(
            {
                "label": "Unusable rows (the first of them)",
                "head": ["row", "reason", "what to do"],
                "rows": [[Path(b["place"]).name, b["reason"], b["detail"]] for b in bad[:_ROWS_SHOWN]],
            }
        )
    return tables


def _examples(group: dict[str, Any]) -> str:
    return "; ".join(
        ", ".join(str(row["line"]) for row in known["rows"][:5]) for known in group["largest"][:5]
    )
