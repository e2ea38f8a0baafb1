"""An inspection as one self-contained HTML page, filled into page.html: no script, no network, light and
dark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.inspection.inspection import Inspection
from instruction_modelling.inspection.text import example_count, facts, length_lines, row_title, shown_arms
from instruction_modelling.inspection.token_texts import TokenText, token_texts, visible
from instruction_modelling.inspection.turns import shown_turns, which_sequence
from instruction_modelling.pages.templates import render_page
from instruction_modelling.tokens.encoded_rows import EncodedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Stands for a token that shows no character of its own: a further part of one character.
CONTINUATION = "▫"


@dataclass(frozen=True)
class ShownToken:
    """A token as the page shows it: its text, the tip that appears when it is pointed at, its CSS classes,
    and the weight that stands behind it where it ends a run of one weight that is neither 0 nor 1."""

    text: str
    tip: str
    classes: str
    weight_behind: float | None


def html_page(
    inspection: Inspection,
    rows: Sequence[EncodedRow],
    tokenizer: "PreTrainedTokenizerBase",
    settings: dict[str, str],
    warnings: Sequence[str],
) -> str:
    """Return the page's HTML: facts, totals by span kind, lengths, warnings, and `rows` token by token."""
    *lengths, length_sentence = length_lines(inspection)
    with_loss = sum(entry["tokens_with_loss"] for entry in inspection.arm_totals.by_kind.values())
    return render_page(
        Path(__file__).parent,
        title=f"Loss weights of {visible(inspection.file.path.name)} · {visible(inspection.arm.name)}",
        facts=map(visible, facts(inspection, settings)),
        arms=[
            {"name": visible(name), "counted": example_count(inspection, name)}
            for name in shown_arms(inspection)
        ],
        kinds=_kinds(inspection),
        all={"tokens": f"{inspection.arm_totals.tokens:,}", "tokens_with_loss": f"{with_loss:,}"},
        lengths=lengths,
        length_sentence=length_sentence,
        warnings=map(visible, warnings),
        legend=inspection.arm_totals.by_kind,
        continuation=CONTINUATION,
        rows=(shown for row in rows for shown in _rows(inspection, row, tokenizer)),
    )


def _rows(
    inspection: Inspection, row: EncodedRow, tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[dict[str, Any]]:
    """Yield title, tokens and turns of each sequence of a row."""
    turns = list(shown_turns(inspection, row, tokenizer))
    for sequence, weights in zip(row.sequences, inspection.weights(row), strict=True):
        number = f" · {which_sequence(row, sequence)}" if len(row.sequences) > 1 else ""
        yield {
            "title": row_title(inspection, row) + number,
            "tokens": _tokens(token_texts(sequence, weights, tokenizer)),
            "turns": [turn for turn in turns if turn.part == sequence.rendered.part],
        }


def _kinds(inspection: Inspection) -> Iterator[dict[str, Any]]:
    """Yield name, tokens, tokens with a loss and shares of the loss of each span kind that occurs."""
    by_kind, arms = inspection.arm_totals.by_kind, shown_arms(inspection)
    for kind in KIND_NAMES:
        if kind in by_kind or any(kind in shares for shares in arms.values()):
            entry = by_kind.get(kind, {"tokens": 0, "tokens_with_loss": 0})
            yield {
                "name": kind,
                "tokens": f"{entry['tokens']:,}",
                "tokens_with_loss": f"{entry['tokens_with_loss']:,}",
                "shares": [f"{shares.get(kind, 0.0):.1%}" for shares in arms.values()],
            }


def _tokens(row: Sequence[TokenText]) -> Iterator[ShownToken]:
    number = 0
    for (_, weight), run in groupby(row, key=lambda token: (token.kind, token.weight)):
        run_tokens = list(run)
        for token in run_tokens:
            ends_run = token is run_tokens[-1]
            yield _shown(token, number, weight if ends_run and weight not in (0, 1) else None)
            number += 1


def _shown(token: TokenText, number: int, weight_behind: float | None) -> ShownToken:
    style = "zero" if not token.weight else "one" if token.weight == 1 else "part"
    return ShownToken(
        text=visible(token.text) or CONTINUATION,
        tip=f"{visible(token.name)} · id {token.id} · {token.kind} · weight {token.weight}",
        classes=f"t{' b' if number % 2 else ''} k-{token.kind} {style}",
        weight_behind=weight_behind,
    )
