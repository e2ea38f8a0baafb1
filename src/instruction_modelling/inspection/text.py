"""An inspection on a terminal: rows with their tokens in colour, and the totals as a table."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.inspection.inspection import Inspection, short_weights
from instruction_modelling.tokens.encoded import EncodedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Two shades a kind, taken in turn, so that the tokens can be told apart.
ANSI = {
    "template": (90, 37),
    "system": (35, 95),
    "user": (34, 94),
    "assistant": (32, 92),
    "end": (31, 91),
    "tool": (33, 93),
    "tools": (90, 37),
    "tool_calls": (36, 96),
    "reasoning": (36, 96),
    "text": (32, 92),
}
UNDERLINE, BOLD = 4, 1
BAR = 10
# Joiners that emoji and many scripts need.
KEPT_FORMAT = "\u200c\u200d"


@dataclass(frozen=True)
class Piece:
    """One token as it is shown: the characters it adds to the text ("" where the token before already showed
    them), its name in the vocabulary, id, kind and weight."""

    text: str
    name: str
    id: int
    kind: str
    weight: float


def pieces(row: EncodedRow, weights: np.ndarray, tokenizer: "PreTrainedTokenizerBase") -> list[Piece]:
    """The row's tokens in order; their texts put end to end are the row's text, as far as it is kept, after
    the BOS that the tokenizer adds."""
    ids = row.tokens.ids.tolist()
    out, cursor = [], 0
    columns = (
        ids,
        tokenizer.convert_ids_to_tokens(ids),
        row.tokens.end.tolist(),
        row.kinds.tolist(),
        short_weights(weights),
    )
    for number, (id_, name, end, kind, weight) in enumerate(zip(*columns, strict=True)):
        text = row.rendered.text[cursor:end]
        if end == 0 and row.tokens.is_control[number]:
            text = name
        cursor = max(cursor, end)
        out.append(Piece(text, name, id_, KIND_NAMES[kind], weight))
    return out


def visible(text: str) -> str:
    """The text with a sign for each character that a reader would not see, or that would change the page: a
    line break is ⏎ and a line break, other control and formatting characters are their picture or number."""
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character == "\n":
        return "⏎\n"
    category = unicodedata.category(character)
    if category == "Cc" and ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    if category in ("Cc", "Zl", "Zp") or (category == "Cf" and character not in KEPT_FORMAT):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def row_title(inspection: Inspection, row: EncodedRow) -> str:
    """A row's number, id and counts, and why it is left out where it is."""
    weights = inspection.weights(row)
    parts = [
        f"row {row.conversation.row}",
        row.conversation.id,
        f"{len(row.kinds)} tokens",
        f"{np.count_nonzero(weights[1:])} with a loss",
    ]
    if row.tokens_cut:
        parts.append(f"{row.tokens_cut} tokens cut off")
    if reason := inspection.dropped.get(row.conversation.row):
        parts.append(f"DROPPED: {reason}")
    return visible(" · ".join(parts))


def row_text(row: EncodedRow, weights: np.ndarray, tokenizer: "PreTrainedTokenizerBase", colour: bool) -> str:
    """The row's text by runs of tokens of one kind and weight.

    In colour, each kind has its own and tokens take turns between two shades of it; what has a loss is
    underlined, and a weight other than 0 and 1 stands behind its run. Plain, each run is a line that begins
    with `[kind weight]`.
    """
    out = []
    for (kind, weight), run in groupby(
        pieces(row, weights, tokenizer), key=lambda piece: (piece.kind, piece.weight)
    ):
        if not colour:
            out.append(
                f"[{kind} {weight}] " + visible("".join(piece.text for piece in run)).rstrip("\n") + "\n"
            )
            continue
        for number, piece in enumerate(run):
            style = f"{ANSI[kind][number % 2]}{f';{UNDERLINE}' if weight else ''}"
            # Styles are closed before line breaks, at which pagers cut.
            out.append(
                "\n".join(
                    f"\x1b[{style}m{line}\x1b[0m" if line else "" for line in visible(piece.text).split("\n")
                )
            )
        if weight not in (0, 1):
            out.append(f"\x1b[{BOLD}m[{weight}]\x1b[0m")
    return "".join(out).rstrip("\n")


def legend(inspection: Inspection, colour: bool) -> str:
    """What the colours mean."""
    if not colour:
        return "[kind weight] before each run of tokens; ⏎ is a line break"
    kinds = " ".join(f"\x1b[{ANSI[kind][0]}m{kind}\x1b[0m" for kind in inspection.own.by_kind)
    return f"{kinds}   \x1b[{UNDERLINE}mhas a loss\x1b[0m, [0.1] weight where not 0 or 1, ⏎ line break"


def shown_arms(inspection: Inspection) -> dict[str, dict[str, float]]:
    """The shares under IT, under IM, and under this arm where they are others."""
    arms = {name: totals.shares() for name, totals in inspection.totals.items()}
    own = arms[inspection.arm.name]
    if inspection.arm.name not in ("IT", "IM") and own in (arms["IT"], arms["IM"]):
        del arms[inspection.arm.name]
    return arms


def counted(inspection: Inspection, name: str) -> str:
    """How many rows (or blocks) an arm trains on, in words."""
    blocks = name == inspection.arm.name and inspection.arm.block_size
    return f"{inspection.totals[name].examples:,} {'blocks' if blocks else 'rows'}"


def bar(share: float) -> str:
    """A share as a bar of at most ten characters, in eighths."""
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def totals_table(inspection: Inspection) -> Iterator[str]:
    """Tokens, tokens with a loss and shares of the loss by kind, IT and IM side by side."""
    own, arms = inspection.own.by_kind, shown_arms(inspection)
    wide = BAR + 9
    yield (
        f"{'kind':<11}{'tokens':>12}{'with a loss':>13}   "
        + "".join(f"{name:<{wide}}" for name in arms).rstrip()
    )
    for kind in KIND_NAMES:
        if kind not in own and not any(kind in shares for shares in arms.values()):
            continue
        entry = own.get(kind, {"tokens": 0, "tokens_with_loss": 0})
        cells = (
            f"{shares.get(kind, 0.0):>6.1%} {bar(shares.get(kind, 0.0)):<{wide - 7}}"
            for shares in arms.values()
        )
        yield (
            f"{kind:<11}{entry['tokens']:>12,}{entry['tokens_with_loss']:>13,}   " + "".join(cells)
        ).rstrip()
    with_loss = sum(entry["tokens_with_loss"] for entry in own.values())
    counts = (f"{counted(inspection, name):<{wide}}" for name in arms)
    yield f"{'all':<11}{inspection.own.tokens:>12,}{with_loss:>13,}   {''.join(counts)}".rstrip()


def length_lines(inspection: Inspection) -> Iterator[str]:
    """Tokens a row: of the row, its instruction and its response."""
    lengths = inspection.lengths()
    yield f"{'tokens a row':<14}" + "".join(
        f"{name:>9}" for name in ("min", "median", "mean", "p90", "p99", "max")
    )
    for name in ("row", "instruction", "response"):
        yield f"{name:<14}" + "".join(
            f"{value:>9,.1f}" if isinstance(value, float) else f"{value:>9,}"
            for value in lengths[name].values()
        )
    ratio = lengths["instruction_to_response"]
    yield (
        f"instruction to response: {f'{ratio:.3f}' if ratio is not None else 'no response'} (ratio of the "
        f"means); longest row before cutting {lengths['longest_before_cutting']:,}; "
        f"{lengths['truncated_rows']:,} rows cut, {lengths['tokens_cut']:,} tokens lost"
    )


def facts(inspection: Inspection, settings: dict[str, str]) -> Iterator[str]:
    """What was inspected, a line each."""
    file = inspection.file
    yield f"file: {file.path} ({file.rows:,} rows, {len(inspection.used):,} used), sha256 {file.sha256[:16]}"
    yield from (f"{name}: {value}" for name, value in settings.items())


def report(inspection: Inspection, settings: dict[str, str], warnings: list[str]) -> Iterator[str]:
    """The lines below the examples."""
    yield from map(visible, facts(inspection, settings))
    yield ""
    yield "share of the loss by kind, the whole file as one step (sum of the tokens' coefficients):"
    yield from totals_table(inspection)
    yield ""
    yield from length_lines(inspection)
    yield ""
    yield from (f"warning: {visible(warning)}" for warning in warnings)
    if not warnings:
        yield "no warnings"
