"""The analysis of files as one self-contained page, without scripts and without anything to load."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.analysis.advisor import OWN
from instruction_modelling.analysis.text import (
    file_names,
    number,
    percent,
    position_text,
    prediction_text,
    signed,
    summary_groups,
    told_once,
)
from instruction_modelling.pages.template import STYLE

if TYPE_CHECKING:
    from instruction_modelling.analysis.analysis import Analysis

_ROWS_SHOWN = 10
_STYLE = (
    STYLE
    + """
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); align-items: start; }
.cards .answer { margin: 0; max-width: none; } .cards .answer h2 { overflow-wrap: anywhere; }
.stances { display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); align-items: start; }
.findings { list-style: none; padding: 0; max-width: 52rem; } .findings li { margin: .6rem 0; padding-left: .8rem;
  border-left: .25rem solid var(--line); font-size: .95rem; }
.findings .for { border-color: #2a7f9e; } .findings .against { border-color: #d55e00; }
.findings .caution { border-color: var(--note-line); }
.source { display: block; color: var(--soft); font-size: .82rem; }
table.numbers { width: auto; min-width: min(100%, 34rem); } table.numbers td, table.numbers thead th + th { text-align: right; }
table.numbers td { white-space: nowrap; } tbody th[scope=rowgroup] { padding-top: 1rem; font-size: .85rem; color: var(--soft);
  font-weight: 650; }
"""
)
_PAGE = """
{%- macro picture(p) %}
<figure>
<figcaption><h4>{{ p.title }}</h4><p>{{ p.guide }}</p></figcaption>
{{ p.svg | safe }}
</figure>
{%- endmacro -%}
{%- macro table(label, head, groups, kind="") %}
<div class="scroll" role="region" tabindex="0" aria-label="{{ label }}">
<table class="{{ kind }}">
<caption><span>{{ label }}</span></caption>
<thead><tr>{% for name in head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
{%- for title, rows in groups %}
<tbody>
{%- if title %}
<tr><th scope="rowgroup" colspan="{{ head | length }}">{{ title }}</th></tr>
{%- endif %}
{%- for row in rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for value in row[1:] %}<td>{{ value }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
{%- endfor %}
</table>
</div>
{%- endmacro -%}
{%- macro findings(items) %}
<ul class="findings">
{%- for item in items %}
<li class="{{ item.stance }}">{{ item.text }}
<span class="source">{{ item.source }}{% if item.of %} (told of {{ item.of }}){% endif %}</span></li>
{%- endfor %}
</ul>
{%- endmacro -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<div class="cards">
{%- for file in files %}
<section class="answer" aria-labelledby="{{ file.anchor }}-brief">
<h2 id="{{ file.anchor }}-brief">{{ file.name }}: in brief</h2>
{%- for line in file.in_brief %}
<p>{{ line }}</p>
{%- endfor %}
<p class="soft"><a href="#{{ file.anchor }}">Lengths, shares, nearest sets and arms to run</a> · <a href="#found">what was found</a></p>
</section>
{%- endfor %}
</div>
{%- if axes %}
<div class="figures" style="margin-top: 1.25rem">{{ picture(axes) }}{{ picture(gains) }}</div>
{%- endif %}
<p class="soft">Words are those of the paper's Table 5: whitespace-separated words of the text in the paper's format, one for the
role's header included. Output is the assistant's messages, instruction all others; ± is the population standard deviation;
ratios are of the means. Every usable row counts.</p>
{{ table("Each file in numbers", [""] + names, groups, "numbers") }}
{%- for file in files %}
<section id="{{ file.anchor }}" aria-labelledby="{{ file.anchor }}-title">
<h2 id="{{ file.anchor }}-title">{{ file.name }}</h2>
<div class="figures">{% for p in file.pictures %}{{ picture(p) }}{% endfor %}</div>
{%- if file.own %}
<h3>What its numbers warn of</h3>
{{ findings(file.own) }}
{%- endif %}
{%- if file.predicted %}
<h3>What the published points predict</h3>
<ul>{% for line in file.predicted %}<li>{{ line }}</li>{% endfor %}</ul>
{%- endif %}
{%- if file.nearest %}
{{ table("The paper's sets nearest to this one on the two axes, IT to IM (LLaMA-2-7B, one run each; arXiv 2405.14394, Table 1)",
         ["set", "instruction / output", "rows", "NLP mean", "MT-Bench", "AlpacaEval 1.0", "AlpacaEval 2.0"],
         [("", file.nearest)]) }}
{%- endif %}
{%- for made in file.tables %}
{{ table(made.label, made.head, [("", made.rows)]) }}
{%- endfor %}
{%- if file.arms %}
<h3>Arms to run</h3>
{{ table("Names as src/compare.py knows them", ["arm", "why"], [("", file.arms)]) }}
<pre class="command">{{ file.commands | join("\n") }}</pre>
{%- endif %}
</section>
{%- endfor %}
<section aria-labelledby="found"><h2 id="found">What the paper and later studies found</h2>
<div class="stances">
{%- for title, items in stances %}
<div><h3>{{ title }}</h3>
{{ findings(items) }}
</div>
{%- endfor %}
</div>
</section>
<section aria-labelledby="how"><h2 id="how">How it was made</h2>
<p>The command that made this page:</p>
<pre class="command">{{ command }}</pre>
<dl>{% for file in files %}<dt>{{ file.name }}</dt><dd>{{ file.path }}, sha256 {{ file.sha256 }}</dd>{% endfor %}</dl>
</section>
</main>
</body>
</html>
"""
_STANCES = {"for": "For IM", "against": "Against IM", "mixed": "Neither, or both", "caution": "Cautions"}


def analysis_page(analyses: "Sequence[Analysis]", command: str) -> str:
    """The page's HTML; `command` is the command line that made it."""
    from jinja2 import Environment, StrictUndefined

    from instruction_modelling.analysis.figures import draw_axes_of_the_paper, draw_gains

    files = [analysis.results for analysis in analyses]
    names = file_names(files)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    title = f"What is in {names[0]}" if len(names) == 1 else f"What is in these {len(names)} files"
    return template.render(
        title=title,
        style=_STYLE,
        command=command,
        names=names,
        groups=[
            (heading, [[label, *cells] for label, cells in rows]) for heading, rows in summary_groups(files)
        ],
        stances=_stances(files),
        axes=draw_axes_of_the_paper(names, files),
        gains=draw_gains(names, files),
        files=[
            _view(place, name, analysis)
            for place, (name, analysis) in enumerate(zip(names, analyses, strict=True))
        ],
    ).lstrip()


def _view(place: int, name: str, analysis: "Analysis") -> dict[str, Any]:
    from instruction_modelling.analysis.figures import draw_file

    found = analysis.results
    advice = found["advice"]
    position = (
        [position_text(advice) + "."]
        if advice["position"]
        else ["This set has no place on the paper's axes."]
    )
    anchor = f"file-{place}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"
    return {
        "name": name,
        "anchor": anchor,
        "path": found["path"],
        "sha256": found["sha256"],
        "in_brief": position + advice["in_brief"],
        "pictures": draw_file(anchor, analysis),
        "tables": _tables(found),
        "predicted": [prediction_text(known) + "." for known in advice["predictions"] if known["applies"]],
        "nearest": [_neighbour(known) for known in advice["nearest"]],
        "own": [
            {**caution, "of": "", "source": ""} for caution in advice["cautions"] if caution["source"] == OWN
        ],
        "arms": [[arm["name"], arm["reason"]] for arm in advice["arms"]],
        "commands": advice["commands"],
    }


def _neighbour(known: dict[str, Any]) -> list[str]:
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
        for item, names in told_once(files, key)
    ]
    by_stance = [
        (title, [item for item in items if item["stance"] == stance]) for stance, title in _STANCES.items()
    ]
    return [(title, some) for title, some in by_stance if some]


def _tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    turns, near, tokens = found["turns"], found["near_duplicates"], found["tokens"]
    tables = [
        {
            "label": "Roles",
            "head": ["role", "messages", "words a row"],
            "rows": [
                [role, number(count), number(found["words"]["by_role"].get(role, 0.0))]
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
        ("same instruction", found["duplicates"]["instruction"]),
        ("same row", found["duplicates"]["row"]),
        ("same instruction, several outputs", found["duplicates"]["conflicting"]),
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
    bad = [*found["bad_rows"]["listed"], *(tokens["refused_rows"]["listed"] if tokens else [])]
    if bad:
        tables.append(
            {
                "label": "Unusable rows (the first of them)",
                "head": ["line", "reason", "what to do"],
                "rows": [[number(b["line"]), b["reason"], b["detail"]] for b in bad[:_ROWS_SHOWN]],
            }
        )
    return tables


def _examples(group: dict[str, Any]) -> str:
    return "; ".join(
        ", ".join(str(row["line"]) for row in known["rows"][:5]) for known in group["largest"][:5]
    )
