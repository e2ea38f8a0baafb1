"""Where a token's loss weight comes from: its span kind, its message's weight, and the options.

    tokens + spans -> (span_kinds) kind and message per token -> (loss_weights) loss weight per token

A token's weight is put together here: `WeightPolicy.by_kind` is the table of what each kind weighs, and a
weight of 0 means no loss. Two more sources feed in: `released_masks`, which takes the place of the table
under `mask_style` "released", and `weighted.WeightedData`, which gives the first token of a row 0.

A token takes the kind of its last character (a token may straddle two spans); a control token, which may have
swallowed whitespace around it, that of its own text.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from instruction_modelling.chat.spans import (
    INSTRUCTION_KINDS,
    RESPONSE_CONTENT_KINDS,
    RESPONSE_KINDS,
    Rendered,
    SpanKind,
)
from instruction_modelling.errors import UserError
from instruction_modelling.tokens.encoder import Tokens, without_swallowed_space

# Bits of a token under the released masks: set where the IT (IM) mask trains the token.
IT_BIT, IM_BIT = 1, 2

MaskStyle = Literal["exact", "released"]


# The kinds that one shorthand flag sets, the kind that stands for them first.
GROUPS = {
    "instruction": (SpanKind.USER, *(kind for kind in INSTRUCTION_KINDS if kind != SpanKind.USER)),
    "response": RESPONSE_KINDS,
    "template": (SpanKind.TEMPLATE, SpanKind.TOOLS),
}
# The kinds of --loss_weights, by name. TEXT is none of them: blocks without weights of their own have it.
TABLE_KINDS = {kind.name.lower(): kind for kind in SpanKind if kind != SpanKind.TEXT}

Table = tuple[tuple[SpanKind, float], ...]


def read_loss_weights(text: str | None) -> Table:
    """Return the entries of --loss_weights, `user=0.1,system=0`, in the order of the kinds' numbers.

    Raises:
        UserError: an entry is no KIND=WEIGHT, names no kind, is no finite number of 0 or more, or names a
            kind that another one names too.
    """
    table: dict[SpanKind, float] = {}
    for entry in (text or "").split(",") if text is not None else ():
        name, equals, number = (part.strip() for part in entry.partition("="))
        if not (name and equals and number):
            raise UserError(
                f"--loss_weights: {entry.strip()!r} is no entry; write KIND=WEIGHT, with commas between, "
                "such as user=0.1,system=0"
            )
        if name not in TABLE_KINDS:
            if name.lower() in GROUPS:
                kinds = ", ".join(kind.name.lower() for kind in GROUPS[name.lower()])
                raise UserError(
                    f"--loss_weights: {name} is no kind of text but a group ({kinds}): give "
                    f"--{name.lower()}_loss_weight {number}"
                )
            close = difflib.get_close_matches(name.lower(), TABLE_KINDS, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise UserError(
                f"--loss_weights: no kind of text is called {name!r}{meant} (the kinds are "
                f"{', '.join(TABLE_KINDS)})"
            )
        if TABLE_KINDS[name] in table:
            raise UserError(f"--loss_weights: {name} stands there twice; give it one weight")
        table[TABLE_KINDS[name]] = _read_weight(name, number)
    return tuple(sorted(table.items()))


def _read_weight(name: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"--loss_weights: {name}={number}: a loss weight is a finite number, 0 or more")
    # A weight of -0 is 0, so that equal tables are written alike.
    return abs(weight)


def idle_flags(table: Table, flags: Mapping[str, float]) -> list[str]:
    """Return, in words, which flags for groups of kinds would change nothing beside a table, since it gives
    each of their kinds another weight.

    Args:
        flags: `use_lm_loss`, which is an instruction weight of 1, or a group's `_loss_weight`, and its value.
    """
    problems, weights = [], dict(table)
    for flag, value in flags.items():
        kinds = GROUPS[flag.removesuffix("_loss_weight").replace("use_lm_loss", "instruction")]
        if all(weights.get(kind, value) != value for kind in kinds):
            names = " and ".join(kind.name.lower() for kind in kinds)
            problems.append(
                f"--{flag} would change nothing: --loss_weights gives {names} other weights; leave out one "
                "of the two"
            )
    return problems


def written_table(table: Table) -> str:
    """Return entries as --loss_weights takes them: `user=0.1,system=0`."""
    return ",".join(f"{kind.name.lower()}={_number(weight)}" for kind, weight in table)


def _number(weight: float) -> str:
    """Return a weight in few digits, in all of its digits where it needs more than six."""
    return f"{weight:g}" if float(f"{weight:g}") == weight else repr(weight)


@dataclass(frozen=True)
class WeightPolicy:
    """The loss weights of one arm (paper Eq. 2, IT: response 1, all else 0; Eq. 4, IM: instruction 1 as
    well)."""

    instruction: float = 0.0
    """Of system and user contents."""
    response: float = 1.0
    """Of what the assistant writes: contents, ends, openings, reasoning and tool calls."""
    template: float = 0.0
    """Of what the chat format writes, definitions of tools included."""
    mask_style: MaskStyle = "exact"
    """`released`: the masks of the authors' released code decide in place of the kinds (`released_masks`)."""
    table: Table = ()
    """Weights of single kinds, which come before those of their group."""

    def by_kind(self) -> np.ndarray:
        """Return float32[len(SpanKind)]: the weight of a token of each kind, before its message's weight."""
        weights = np.zeros(len(SpanKind))
        for group, kinds in GROUPS.items():
            weights[list(kinds)] = getattr(self, group)
        weights[SpanKind.TEXT] = 1.0
        for kind, weight in self.table:
            weights[kind] = weight
        # One that is too large becomes an infinity, which the first row that it falls on is refused for.
        with np.errstate(over="ignore"):
            return weights.astype(np.float32)

    def exceptions(self) -> tuple[float, float, float, Table]:
        """Return the weights of user contents, assistant contents and template text, and those of the kinds
        that weigh otherwise than the one of these that stands for their group, or than 0 where none does."""
        weights = {SpanKind(kind): 0.0 for kind in TABLE_KINDS.values()}
        for group, kinds in GROUPS.items():
            weights.update(dict.fromkeys(kinds, getattr(self, group)))
        weights.update(self.table)
        usual = {kind: weights[kinds[0]] for kinds in GROUPS.values() for kind in kinds}
        others = tuple((kind, weight) for kind, weight in weights.items() if weight != usual.get(kind, 0.0))
        user, assistant, template = (weights[kinds[0]] for kinds in GROUPS.values())
        return user, assistant, template, others

    def name(self) -> str:
        """Return a short name of the weights; two policies of one mask style that weigh a kind differently
        have different names."""
        user, assistant, template, others = self.exceptions()
        weights = self.by_kind()
        prompt_only = not weights[list(RESPONSE_KINDS)].any()
        name = "prompt only" if prompt_only else "IM" if user else "IT"
        if user != 1 and (user or prompt_only):
            name += f" w={_number(user)}"
        if assistant != 1 and not prompt_only:
            name += f" r={_number(assistant)}"
        if template:
            name += f" t={_number(template)}"
        return f"{name} [{written_table(others)}]" if others else name

    def with_groups(self, instruction: float, response: float) -> "WeightPolicy":
        """Return the policy with these weights of instruction and response, whatever their kinds weigh
        here."""
        grouped = {*GROUPS["instruction"], *GROUPS["response"]}
        table = tuple((kind, weight) for kind, weight in self.table if kind not in grouped)
        return replace(self, instruction=instruction, response=response, table=table)


def span_kinds(
    tokens: Tokens, rendered: Rendered, deciding: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the kind (int8[n]) and the message index (int16[n], -1 for none) of each token, and how many
    tokens straddle two kinds.

    Args:
        deciding: what `deciding_characters` gives for the tokens, where it is known.
    """
    length, spans = len(rendered.text), rendered.spans
    bounds = np.array([bound for span in spans for bound in (span.start, span.end)], dtype=np.int64)
    # Between the spans, and before the first, behind the last, the text is of the template.
    kinds_of, messages_of = np.zeros(2 * len(spans) + 1, np.int8), np.full(2 * len(spans) + 1, -1, np.int16)
    kinds_of[1::2] = [span.kind for span in spans]
    messages_of[1::2] = [span.message for span in spans]
    lengths = np.diff(bounds, prepend=0, append=length + 1)
    kind_of_character, message_of_character = np.repeat(kinds_of, lengths), np.repeat(messages_of, lengths)
    deciding = deciding_characters(tokens, rendered) if deciding is None else deciding
    kinds, messages = kind_of_character[deciding], message_of_character[deciding]
    added_by_tokenizer = tokens.is_control & (tokens.end == tokens.start)
    kinds[added_by_tokenizer], messages[added_by_tokenizer] = SpanKind.TEMPLATE, -1
    text_tokens = ~tokens.is_control & (tokens.end > tokens.start)
    straddling = np.count_nonzero(kind_of_character[tokens.start[text_tokens]] != kinds[text_tokens])
    return kinds, messages, int(straddling)


def own_positions(tokens: Tokens, rendered: Rendered, deciding: np.ndarray | None = None) -> np.ndarray:
    """Return int32[n]: the position of each token's deciding character in its message's own text
    (`Message.text`, in code points), -1 where it stands in none; `deciding` as in `span_kinds`."""
    position_of_character = np.full(len(rendered.text) + 1, -1, dtype=np.int32)
    for source in rendered.sources:
        stop = source.offset + source.end - source.start
        position_of_character[source.start : source.end] = np.arange(source.offset, stop)
    deciding = deciding_characters(tokens, rendered) if deciding is None else deciding
    positions = position_of_character[deciding]
    positions[tokens.is_control & (tokens.end == tokens.start)] = -1
    return positions


# Whether `str.isspace` calls a character whitespace; the last place stands for every one beyond.
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])


def deciding_characters(tokens: Tokens, rendered: Rendered) -> np.ndarray:
    """Return int64[n]: the character of the text that decides the kind of each token."""
    text, start, end = rendered.text, tokens.start.astype(np.int64), tokens.end.astype(np.int64)
    deciding = np.minimum(np.maximum(end - 1, start), len(text))
    control = np.flatnonzero(tokens.is_control & (end - start > 1))
    if len(control):
        deciding[control] = start[control]
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        for i in control[_IS_SPACE[np.minimum(codes[start[control]], len(_IS_SPACE) - 1)]]:
            deciding[i] = without_swallowed_space(text, start[i], end[i])[0]
    return deciding


def loss_weights(
    kinds: np.ndarray,
    messages: np.ndarray,
    message_weights: Sequence[float] | np.ndarray,
    policy: WeightPolicy,
    released: np.ndarray | None = None,
) -> np.ndarray:
    """Return the loss weight of each token, float32[n]: what its kind weighs times the weight of its message.

    Args:
        kinds: int8[n], a `SpanKind` for each token.
        messages: int16[n], the index of the token's message, -1 for none.
        message_weights: the `weight` of each message of the row.
        policy: what each kind weighs.
        released: uint8[n], the bits of `released_masks`, given where `policy.mask_style` is `released`; they
            decide in place of the kinds.
    """
    weights = policy.by_kind()[kinds] if released is None else _released_weights(released, policy)
    # The index -1 (no message) picks the 1.0 appended at the end.
    weight_of_message = np.append(np.asarray(message_weights, dtype=np.float32), 1.0)
    return (weights * weight_of_message[messages]).astype(np.float32)


def _released_weights(released: np.ndarray, policy: WeightPolicy) -> np.ndarray:
    """Return the weights under the released code's masks, float64[n].

    It has a mask for IT and one for IM. Between the two the instruction weight goes from 0 to 1: a token that
    only IT trains fades out as one that only IM trains fades in."""
    in_it, in_im = released & IT_BIT, released & IM_BIT
    if_not_in_it = np.where(in_im, policy.instruction, 0.0)
    if_in_it = np.where(in_im, policy.response, policy.response * max(0.0, 1.0 - policy.instruction))
    return np.where(in_it, if_in_it, if_not_in_it)


def has_response(kinds: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether a sequence has a token of an assistant's text, reasoning or calls that has a loss.

    Args:
        kinds: int8[n], a `SpanKind` for each token of one sequence.
        weights: float32[n], their loss weights; the first token has no loss, whatever it weighs.
    """
    return bool(np.any((weights[1:] != 0) & np.isin(kinds[1:], RESPONSE_CONTENT_KINDS)))
