"""An inspection on a terminal: rows with their tokens in colour, and the totals as a table."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.inspection.inspection import Inspection
from instruction_modelling.inspection.token_texts import CONTEXT, token_texts, visible
from instruction_modelling.inspection.turns import ShownTurn, shown_turns, which_sequence
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence
from instruction_modelling.tokens.factors import pattern_line
from instruction_modelling.tokens.weights import written_table

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
    "opening": (36, 96),
    "user_end": (34, 94),
    CONTEXT: (90, 90),
}
UNDERLINE, BOLD = 4, 1
BAR = 10


def row_title(inspection: Inspection, row: EncodedRow) -> str:
    """Return a row's number, id and counts, and why it is left out where it is."""
    with_loss = sum(np.count_nonzero(weights[1:]) for weights in inspection.weights(row))
    parts = [
        f"row {row.conversation.row}",
        row.conversation.id,
        f"{row.length} tokens",
        f"{with_loss} with a loss",
    ]
    if len(row.sequences) > 1:
        parts.append(f"{len(row.sequences)} sequences")
    if row.tokens_cut:
        parts.append(f"{row.tokens_cut} tokens cut off")
    if reason := inspection.dropped.get(row.conversation.row):
        parts.append(f"DROPPED: {reason}")
    return visible(" · ".join(parts))


def sequence_text(
    sequence: EncodedSequence, weights: np.ndarray, tokenizer: "PreTrainedTokenizerBase", colour: bool
) -> str:
    """Return a sequence's text by runs of tokens of one kind and weight.

    In colour, each kind has its own and tokens take turns between two shades of it; what has a loss is
    underlined, and a weight other than 0 and 1 stands behind its run. Plain, each run is a line that begins
    with `[kind weight]`.
    """
    out = []
    for (kind, weight), run in groupby(
        token_texts(sequence, weights, tokenizer), key=lambda token: (token.kind, token.weight)
    ):
        if not colour:
            out.append(
                f"[{kind} {weight}] " + visible("".join(token.text for token in run)).rstrip("\n") + "\n"
            )
            continue
        for number, token in enumerate(run):
            style = f"{ANSI[kind][number % 2]}{f';{UNDERLINE}' if weight else ''}"
            # Styles are closed before line breaks, at which pagers cut.
            out.append(
                "\n".join(
                    f"\x1b[{style}m{line}\x1b[0m" if line else "" for line in visible(token.text).split("\n")
                )
            )
        if weight not in (0, 1):
            out.append(f"\x1b[{BOLD}m[{weight}]\x1b[0m")
    return "".join(out).rstrip("\n")


def legend(inspection: Inspection, colour: bool) -> str:
    """Return what the colours mean."""
    if not colour:
        return "[kind weight] before each run of tokens; ⏎ is a line break"
    kinds = " ".join(f"\x1b[{ANSI[kind][0]}m{kind}\x1b[0m" for kind in inspection.arm_totals.by_kind)
    return f"{kinds}   \x1b[{UNDERLINE}mhas a loss\x1b[0m, [0.1] weight where not 0 or 1, ⏎ line break"


def shown_arms(inspection: Inspection) -> dict[str, dict[str, float]]:
    """Return the shares of the loss under IT, under IM, and under this arm where they are others."""
    arms = {name: totals.shares() for name, totals in inspection.totals.items()}
    name = inspection.arm.name
    both = list(arms)[:2]
    if name not in both and arms[name] in [arms[other] for other in both]:
        del arms[name]
    return arms


def example_count(inspection: Inspection, name: str) -> str:
    """Return how many rows (or blocks) an arm trains on, in words."""
    blocks = name == inspection.arm.name and inspection.arm.block_size
    return f"{inspection.totals[name].examples:,} {'blocks' if blocks else 'rows'}"


def bar(share: float) -> str:
    """Return a share as a bar of at most ten characters, in eighths."""
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def totals_table(inspection: Inspection) -> Iterator[str]:
    """Yield the lines of a table: tokens, tokens with a loss and shares of the loss by kind, IT and IM side
    by side."""
    by_kind, arms = inspection.arm_totals.by_kind, shown_arms(inspection)
    wide = BAR + 9
    yield (
        f"{'kind':<11}{'tokens':>12}{'with a loss':>13}   "
        + "".join(f"{name:<{wide}}" for name in arms).rstrip()
    )
    for kind in KIND_NAMES:
        if kind not in by_kind and not any(kind in shares for shares in arms.values()):
            continue
        entry = by_kind.get(kind, {"tokens": 0, "tokens_with_loss": 0})
        cells = (
            f"{shares.get(kind, 0.0):>6.1%} {bar(shares.get(kind, 0.0)):<{wide - 7}}"
            for shares in arms.values()
        )
        yield (
            f"{kind:<11}{entry['tokens']:>12,}{entry['tokens_with_loss']:>13,}   " + "".join(cells)
        ).rstrip()
    with_loss = sum(entry["tokens_with_loss"] for entry in by_kind.values())
    counts = (f"{example_count(inspection, name):<{wide}}" for name in arms)
    yield f"{'all':<11}{inspection.arm_totals.tokens:>12,}{with_loss:>13,}   {''.join(counts)}".rstrip()


def length_lines(inspection: Inspection) -> Iterator[str]:
    """Yield the lines on tokens a row: of the row, its instruction and its response."""
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
        + (f", with {lengths['turns_cut']:,} whole turns" if lengths["turns_cut"] else "")
    )


def describe_settings(inspection: Inspection, tokenizer: str) -> dict[str, str]:
    """Return the settings that decide about the weights, by name, for a reader."""
    arm, encoder, turns = inspection.arm, inspection.encoder, inspection.factors.train_turns
    policy = arm.policy
    table = f", {written_table(policy.table).replace(',', ', ')}" if policy.table else ""
    weights = (
        f"instruction {policy.instruction:g}, response {policy.response:g}, template {policy.template:g}"
        f"{table}; masks {policy.mask_style}; normalisation {arm.normalization}, "
        f"denominator {arm.denominator}"
    )
    if arm.weighs_all():
        weights = "every token 1"
    if turns != "all":
        weights += f", the assistant's {turns} turns alone"
    if arm.block_size:
        weights += f", in blocks of {arm.block_size}"
    return {
        "tokenizer": tokenizer,
        "chat format": f"{encoder.chat_format.name}, at most {encoder.max_seq_length} tokens",
        "loss": f"{arm.name} ({weights})",
        **({"loss patterns": pattern_line(inspection.matches)} if inspection.matches else {}),
    }


def facts(inspection: Inspection, settings: dict[str, str]) -> Iterator[str]:
    """Yield what was inspected, a line each."""
    file = inspection.file
    yield f"file: {file.path} ({file.rows:,} rows, {len(inspection.used):,} used), sha256 {file.sha256[:16]}"
    yield from (f"{name}: {value}" for name, value in settings.items())


def turn_lines(turn: ShownTurn, colour: bool) -> Iterator[str]:
    """Yield what the model sees before a turn, and what it must write, by kind and weight."""
    yield f"{turn.title}:"
    yield f"  sees    {turn.sees}"
    pieces = []
    for piece in turn.writes:
        shown = f"[{piece.kind} {piece.weight:g}] {piece.text}"
        pieces.append(f"\x1b[{ANSI[piece.kind][0]}m{shown}\x1b[0m" if colour else shown)
    yield f"  writes  {' '.join(pieces) or 'nothing'}"
    yield from (f"  note    {note}" for note in turn.notes)


def examples(
    inspection: Inspection, rows: Sequence[EncodedRow], tokenizer: "PreTrainedTokenizerBase", colour: bool
) -> Iterator[str]:
    """Yield the rows token by token and then turn by turn, behind what their colours mean."""
    if rows:
        yield legend(inspection, colour)
    for row in rows:
        yield f"\n── {row_title(inspection, row)}"
        for sequence, weights in zip(row.sequences, inspection.weights(row), strict=True):
            if len(row.sequences) > 1:
                yield f"{which_sequence(row, sequence)}:"
            yield sequence_text(sequence, weights, tokenizer, colour)
        yield ""
        for turn in shown_turns(inspection, row, tokenizer):
            yield from turn_lines(turn, colour)


def report(inspection: Inspection, settings: dict[str, str], warnings: list[str]) -> Iterator[str]:
    """Yield the lines below the examples."""
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
