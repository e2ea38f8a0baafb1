"""What every token of a file is and weighs: row by row, and summed by span kind.

The share of a kind in the loss is the sum of the coefficients c_t of its tokens over the sum of all, with the
whole file as one step (c_t as in `tokens.weighted`). Under `example` normalisation every row counts the same,
however long it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, KIND_NAMES, RESPONSE_KINDS
from instruction_modelling.progress import counting
from instruction_modelling.rows.conversations import BadRow, ConversationFile
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence, turns_cut
from instruction_modelling.tokens.factors import NO_FACTORS, TextFactors, with_factors
from instruction_modelling.tokens.overlong import Overlong, leave_out_overlong
from instruction_modelling.tokens.patterns import PatternMatches, pattern_facts
from instruction_modelling.tokens.quotas import quotas_of
from instruction_modelling.tokens.released_blocks import ReleasedGroups
from instruction_modelling.tokens.row_encoder import RowEncoder, require_user_end
from instruction_modelling.tokens.weighted import WeightedData, count_reasons, totals_by_kind, weigh_rows
from instruction_modelling.tokens.weights import WeightPolicy


@dataclass(frozen=True)
class LossArm:
    """How one arm makes a loss of token weights."""

    name: str
    policy: WeightPolicy
    normalization: str = "example"
    denominator: str = "nonzero"
    block_size: int | None = None
    """Tokens of a block, where the rows are trained on end to end, cut into blocks."""
    weighted_blocks: bool = False
    """Whether tokens of blocks keep their weights; else each weighs 1."""
    groups: ReleasedGroups | None = None
    """What the rows are grouped by before blocks are cut, under the released recipe."""

    def weighs_all(self) -> bool:
        """Return whether every token weighs 1, whatever its kind."""
        return self.block_size is not None and not self.weighted_blocks

    def instruction_tuning(self) -> "LossArm":
        """Return IT (loss on the response alone), all else as in this arm, and in its name where that has a
        loss (`IT [tool=0.5]`)."""
        policy = self.policy.with_groups(0.0, 1.0)
        return replace(self, name=policy.name(), policy=policy, block_size=None)

    def instruction_modelling(self) -> "LossArm":
        """Return IM (loss on instruction and response), all else as in this arm, as `instruction_tuning`."""
        policy = self.policy.with_groups(1.0, 1.0)
        return replace(self, name=policy.name(), policy=policy, block_size=None)


@dataclass(frozen=True)
class ArmTotals:
    """Sums over the rows (or blocks) that an arm trains on."""

    examples: int
    """How many rows (or blocks) these are."""
    by_kind: dict[str, dict[str, Any]]
    """As `totals_by_kind` gives them; blocks keep the kinds of the rows they are cut from."""
    dropped: dict[int, str]
    """The rows that have no loss: index into the data to reason. Empty where the loss is on blocks."""

    @property
    def tokens(self) -> int:
        """Return the number of all tokens."""
        return sum(entry["tokens"] for entry in self.by_kind.values())

    def shares(self) -> dict[str, float]:
        """Return the share of the loss of each kind, 0..1."""
        return {kind: entry["loss_share"] for kind, entry in self.by_kind.items()}


def weigh_for(data: EncodedData, arm: LossArm) -> tuple[WeightedData, dict[int, str]]:
    """Return the rows (or blocks) that an arm trains on with their weights, and the reason of each row that
    has no loss, by its index in `data`; of blocks none is left out."""
    if not arm.block_size:
        return weigh_rows(data, arm.policy, arm.normalization, arm.denominator)
    if arm.groups:
        data = arm.groups.kept(data, arm.policy, arm.block_size)
    blocks = data.blocks(arm.block_size, keep_kinds=True)
    if arm.weighted_blocks:
        return weigh_rows(blocks, arm.policy, arm.normalization, arm.denominator)[0], {}
    ones = data.blocks(arm.block_size).weights(arm.policy)
    return WeightedData(blocks, ones, arm.normalization), {}


def totals_of_arm(data: EncodedData, arm: LossArm, file: ConversationFile | None = None) -> ArmTotals:
    """Return the totals of an arm on encoded rows; the shares of the loss are those of an epoch, where the
    file is several that have proportions."""
    weighted, dropped = weigh_for(data, arm)
    quotas = None if file is None or arm.block_size else quotas_of(file, weighted.data.rows)
    times = None if quotas is None else quotas.times()
    return ArmTotals(len(weighted.data), totals_by_kind(weighted, times), dropped)


def distribution(values: np.ndarray) -> dict[str, float]:
    """Return min, median, mean, p90, p99 and max of counts, int64[n]; empty where there are none."""
    if not len(values):
        return {}
    median, p90, p99 = np.percentile(values, [50, 90, 99])
    return {
        "min": int(values.min()),
        "median": float(median),
        "mean": float(values.mean()),
        "p90": float(p90),
        "p99": float(p99),
        "max": int(values.max()),
    }


@dataclass(frozen=True)
class Inspection:
    """A file as one arm sees it."""

    file: ConversationFile
    items: list[EncodedRow | BadRow]
    """The file's rows in its order, encoded or refused."""
    data: EncodedData
    """The encoded ones of them."""
    arm: LossArm
    encoder: RowEncoder
    """What made them."""
    factors: TextFactors = NO_FACTORS
    """What multiplies the weights of every arm by turn and by pattern."""
    matches: list[PatternMatches] = field(default_factory=list)
    """What each pattern matched."""

    @cached_property
    def totals(self) -> dict[str, ArmTotals]:
        """Return the totals under IT, under IM and under this arm, by name."""
        arms = (self.arm.instruction_tuning(), self.arm.instruction_modelling())
        totals = {arm.name: totals_of_arm(self.data, arm, self.file) for arm in arms}
        same = next((arm for arm in arms if replace(arm, name=self.arm.name) == self.arm), None)
        totals[self.arm.name] = totals[same.name] if same else totals_of_arm(self.data, self.arm, self.file)
        return totals

    @property
    def arm_totals(self) -> ArmTotals:
        """Return this arm's totals."""
        return self.totals[self.arm.name]

    @cached_property
    def dropped(self) -> dict[int, str]:
        """Return every row left out, in file order: 0-based row of the file to reason."""
        reasons = {bad.row: bad.reason for bad in self.bad_rows}
        reasons |= {int(self.data.rows[index]): reason for index, reason in self.arm_totals.dropped.items()}
        return dict(sorted(reasons.items()))

    @property
    def bad_rows(self) -> list[BadRow]:
        """Return the rows that could not be read or rendered, or are too long, in file order."""
        return [item for item in self.items if isinstance(item, BadRow)]

    @cached_property
    def encoded(self) -> list[EncodedRow]:
        """Return the rows that could be encoded, in file order."""
        return [item for item in self.items if isinstance(item, EncodedRow)]

    @cached_property
    def used(self) -> list[EncodedRow]:
        """Return the rows that are trained on, in file order."""
        return [row for row in self.encoded if row.conversation.row not in self.dropped]

    def weights(self, row: EncodedRow) -> list[np.ndarray]:
        """Return float32[n] for each sequence of a row: the weight of each token, the first token's, too
        (which has no loss)."""
        if self.arm.weighs_all():
            return [sequence.owned.astype(np.float32) for sequence in row.sequences]
        index = self._index_of_row[row.conversation.row]
        return [self._weights[self.data.sequence_span(s)] for s in self.data.sequences_of(index)]

    @cached_property
    def _weights(self) -> np.ndarray:
        return self.data.weights(self.arm.policy)

    @cached_property
    def _index_of_row(self) -> dict[int, int]:
        return {row: index for index, row in enumerate(self.data.rows.tolist())}

    def lengths(self) -> dict[str, Any]:
        """Return the numbers of tokens of the used rows: of the `row`, the `instruction` (system and user)
        and the `response`, each as `distribution` gives them; the ratio of the means of the last two (of
        tokens, not the paper's of words); and what was cut off."""
        used = self.used
        uncut = np.array(
            [len(part.kinds) + part.tokens_cut for row in used for part in row.sequences], dtype=np.int64
        )
        rows = np.array([row.length for row in used], dtype=np.int64)
        instruction = np.array([np.isin(row.kinds, INSTRUCTION_KINDS).sum() for row in used], dtype=np.int64)
        response = np.array([np.isin(row.kinds, RESPONSE_KINDS).sum() for row in used], dtype=np.int64)
        return {
            "row": distribution(rows),
            "instruction": distribution(instruction),
            "response": distribution(response),
            "instruction_to_response": instruction.sum() / response.sum() if response.sum() else None,
            "longest_before_cutting": int(uncut.max()) if len(uncut) else 0,
            "truncated_rows": sum(row.tokens_cut > 0 for row in used),
            "tokens_cut": sum(row.tokens_cut for row in used),
            "turns_cut": sum(turns_cut(part) for row in used for part in row.sequences),
            "sequences": sum(len(row.sequences) for row in used),
            "context_tokens": sum(row.length - len(row.kinds) for row in used),
        }

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield for each sequence of each row of the file, in order: row, part (from 0), id, text, dropped
        and tokens (see `token_records`)."""
        for item in self.items:
            if isinstance(item, BadRow):
                yield {
                    "row": item.row,
                    "part": 0,
                    "id": item.id or self.file.made_up_id(item.row),
                    "text": "",
                    "dropped": item.reason,
                    "tokens": [],
                }
                continue
            reason = self.dropped.get(item.conversation.row)
            for sequence, weights in zip(item.sequences, self.weights(item), strict=True):
                yield {
                    "row": item.conversation.row,
                    "part": sequence.rendered.part,
                    "id": item.conversation.id,
                    "text": sequence.rendered.text,
                    "dropped": reason,
                    "tokens": [] if reason else token_records(sequence, weights),
                }

    def summary(self, warnings: list[str]) -> dict[str, Any]:
        """Return the file's totals, lengths, warnings and left-out rows, and the shares of the loss under
        each arm."""
        return {
            "file": str(self.file.path),
            "sha256": self.file.sha256,
            "arm": self.arm.name,
            "rows": self.file.rows,
            "rows_used": len(self.used),
            "tokens": self.arm_totals.tokens,
            "by_kind": self.arm_totals.by_kind,
            "lengths": self.lengths(),
            "warnings": warnings,
            "dropped": count_reasons(self.dropped.values()),
            "loss_patterns": pattern_facts(self.matches),
            "arms": {name: totals.shares() for name, totals in self.totals.items()},
        }


def short_weights(weights: np.ndarray) -> list[float]:
    """Return float32 weights as the shortest decimals that stand for them: 0.1, not 0.10000000149011612."""
    values, index = np.unique(weights, return_inverse=True)
    short = [float(str(value)) for value in values]
    return [short[i] for i in index.tolist()]


def token_records(sequence: EncodedSequence, weights: np.ndarray) -> list[dict[str, Any]]:
    """Return id, start, end (characters of the row's text; 0, 0 for a BOS that the tokenizer adds), kind and
    weight of each token that is kept."""
    tokens = sequence.tokens
    columns = (
        tokens.ids.tolist(),
        tokens.start.tolist(),
        tokens.end.tolist(),
        sequence.kinds.tolist(),
        short_weights(weights),
    )
    return [
        {"id": id_, "start": start, "end": end, "kind": KIND_NAMES[kind], "weight": weight}
        for id_, start, end, kind, weight in zip(*columns, strict=True)
    ]


def inspect_file(
    file: ConversationFile,
    encoder: RowEncoder,
    arm: LossArm,
    factors: TextFactors = NO_FACTORS,
    overlong: Overlong = "cut",
) -> Inspection:
    """Return the file's rows encoded, the bad ones among them in the file's order.

    Args:
        factors: what multiplies the weights of every arm by turn and by pattern.
        overlong: what becomes of rows longer than the encoder's maximum length.

    Raises:
        UserError: as `leave_out_overlong` and `with_factors`; or the arm weighs what ends users' turns, and
            nothing does (`require_user_end`).
    """
    require_user_end(encoder, arm.policy, file)
    encoder.note_unread_variables(file)
    encoded = list(encoder.encode(counting(file.conversations, "rows rendered")))
    data, too_long = leave_out_overlong(collect(encoded), file, overlong, encoder.max_seq_length)
    left_out = {row.row for row in too_long}
    kept = [row for row in encoded if isinstance(row, BadRow) or row.conversation.row not in left_out]
    items = sorted(
        [*kept, *file.bad_rows, *too_long],
        key=lambda item: item.row if isinstance(item, BadRow) else item.conversation.row,
    )
    data, matches = with_factors(data, file.conversations, factors)
    return Inspection(file, items, data, arm, encoder, factors, matches)
