"""An inspection as one self-contained HTML page: no script, no network, light and dark."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.inspection.inspection import Inspection
from instruction_modelling.inspection.text import (
    Piece,
    counted,
    facts,
    length_lines,
    pieces,
    row_title,
    shown_arms,
    visible,
)
from instruction_modelling.tokens.encoded import EncodedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Hue a kind, in degrees; grey where there is none.
HUES = {
    "template": None,
    "system": 300,
    "user": 220,
    "assistant": 145,
    "end": 5,
    "tool": 45,
    "tools": None,
    "tool_calls": 185,
    "reasoning": 265,
    "text": 145,
}
# Stands for a token that shows no character of its own: a further part of one character.
PART = "▫"

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1b1b; --faint: #555; --line: #ddd;
  --tint: 90%; --shade: 82%; --mark: 32%; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #e8e8e8; --faint: #a0a0a0;
  --line: #3a3d42; --tint: 22%; --shade: 29%; --mark: 68%; } }
body { background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.facts, .note { color: var(--faint); overflow-wrap: anywhere; } .facts p { margin: 0; }
pre { overflow-x: auto; font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } td { font-variant-numeric: tabular-nums; }
.bar { display: inline-block; width: 6rem; height: .7rem; margin-left: .5rem; background: var(--line);
  text-align: left; }
.bar i { display: block; height: 100%; background: hsl(215 60% var(--mark)); }
.warning { border-left: .3rem solid hsl(35 90% 50%); padding: .25rem .75rem; margin: .5rem 0;
  overflow-wrap: anywhere; }
.row { border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; margin: .5rem 0 1.5rem;
  white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  font: .9rem/1.9 ui-monospace, monospace; }
.legend span { margin-right: .75rem; padding: .1rem .35rem; }
.t { background: hsl(var(--hue) var(--sat) var(--tint)); border-bottom: 2px solid transparent; }
.t.b { background: hsl(var(--hue) var(--sat) var(--shade)); }
.one { border-bottom-color: hsl(var(--hue) var(--sat) var(--mark)); }
.part { border-bottom: 2px dashed hsl(var(--hue) var(--sat) var(--mark)); }
.zero { color: var(--faint); }
sup { font-size: .65rem; line-height: 1; }
@media print { .t { print-color-adjust: exact; } }
"""


def html_page(
    inspection: Inspection,
    rows: Sequence[EncodedRow],
    tokenizer: "PreTrainedTokenizerBase",
    settings: dict[str, str],
    warnings: Sequence[str],
) -> str:
    """The page: facts, totals, lengths, warnings, and `rows` token by token."""
    *table, sentence = length_lines(inspection)
    title = f"Loss weights of {visible(inspection.file.path.name)} · {visible(inspection.arm.name)}"
    body = [
        f"<h1>{escape(title)}</h1>",
        '<div class="facts">',
        *(f"<p>{escape(visible(line))}</p>" for line in facts(inspection, settings)),
        "</div>",
        "<h2>Where the loss falls</h2>",
        *_totals(inspection),
        '<p class="note">Share of the loss: the sum of the kind’s token coefficients over the sum of all, '
        "the whole file as one step. The first token of a row is predicted by nothing, and is not "
        "counted.</p>",
        "<h2>Lengths</h2>",
        f"<pre>{escape(chr(10).join(table))}</pre>",
        f"<p>{escape(sentence)}</p>",
        "<h2>Warnings</h2>",
        *(f'<p class="warning">{escape(visible(warning))}</p>' for warning in warnings),
        "" if warnings else '<p class="note">None.</p>',
        "<h2>Rows, token by token</h2>",
        _legend(inspection),
        *(part for row in rows for part in _row(inspection, row, tokenizer)),
    ]
    colours = "".join(
        f".k-{kind} {{ --hue: {hue or 0}; --sat: {'0%' if hue is None else '70%'}; }}\n"
        for kind, hue in HUES.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{STYLE}{colours}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _totals(inspection: Inspection) -> Iterator[str]:
    own, arms = inspection.own.by_kind, shown_arms(inspection)
    heads = ["kind", "tokens", "with a loss", *(f"share under {name}" for name in arms)]
    yield (
        '<div class="scroll"><table><thead><tr>'
        + "".join(f'<th scope="col">{escape(visible(head))}</th>' for head in heads)
        + "</tr></thead><tbody>"
    )
    for kind in KIND_NAMES:
        if kind not in own and not any(kind in shares for shares in arms.values()):
            continue
        entry = own.get(kind, {"tokens": 0, "tokens_with_loss": 0})
        cells = [f"<td>{entry['tokens']:,}</td>", f"<td>{entry['tokens_with_loss']:,}</td>"]
        for shares in arms.values():
            share = shares.get(kind, 0.0)
            cells.append(f'<td>{share:.1%}<span class="bar"><i style="width:{share:.1%}"></i></span></td>')
        yield f'<tr><th scope="row"><span class="t k-{kind}">{kind}</span></th>{"".join(cells)}</tr>'
    with_loss = sum(entry["tokens_with_loss"] for entry in own.values())
    counts = "".join(f"<td>{counted(inspection, name)}</td>" for name in arms)
    yield (
        f'<tr><th scope="row">all</th><td>{inspection.own.tokens:,}</td><td>{with_loss:,}</td>{counts}</tr>'
        "</tbody></table></div>"
    )


def _legend(inspection: Inspection) -> str:
    kinds = "".join(f'<span class="t k-{kind}">{kind}</span>' for kind in inspection.own.by_kind)
    return (
        f'<p class="legend">{kinds}</p><p class="note">Two shades of a colour tell the tokens apart. A line '
        "below a token: it has a loss (dashed, with its weight behind the run: neither 0 nor 1). Faint: "
        f"weight 0. {PART}: a further token of the same character. Point at a token for its id, "
        "kind and weight.</p>"
    )


def _row(inspection: Inspection, row: EncodedRow, tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    yield f"<h3>{escape(row_title(inspection, row))}</h3>"
    spans = []
    runs = groupby(
        pieces(row, inspection.weights(row), tokenizer), key=lambda piece: (piece.kind, piece.weight)
    )
    number = 0
    for (_, weight), run in runs:
        for piece in run:
            spans.append(_token(piece, number))
            number += 1
        if weight not in (0, 1):
            spans.append(f"<sup>{weight}</sup>")
    yield f'<div class="row">{"".join(spans)}</div>'


def _token(piece: Piece, number: int) -> str:
    style = "zero" if not piece.weight else "one" if piece.weight == 1 else "part"
    tip = f"{visible(piece.name)} · id {piece.id} · {piece.kind} · weight {piece.weight}"
    return (
        f'<span class="t{" b" if number % 2 else ""} k-{piece.kind} {style}" title="{escape(tip)}">'
        f"{escape(visible(piece.text) or PART)}</span>"
    )
