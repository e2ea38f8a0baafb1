"""A file's rows as token ids, span kinds and message indices: what training reads, cached between runs.

Loss weights are not among them: they are derived from the kinds when they are needed, so another arm, another
weight or another normalisation never tokenises again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodingCounts, count_rows
from instruction_modelling.tokens.weights import WeightPolicy, loss_weights


@dataclass
class EncodedData:
    """The usable rows of a file, flat. Row i has tokens offsets[i]:offsets[i+1] of the flat arrays: those of
    its sequences, one after another. Sequence s has tokens sequence_offsets[s]:sequence_offsets[s+1]; row i
    has the sequences first_sequence[i]:first_sequence[i+1]. A row is one example, whatever its sequences."""

    ids: np.ndarray
    """int32[tokens]"""
    kinds: np.ndarray
    """int8[tokens], a `SpanKind` for each."""
    messages: np.ndarray
    """int16[tokens], the index of the token's message in its row, -1 for none."""
    positions: np.ndarray
    """int32[tokens], where the token's last character stands in its message's own text (`Message.text`: the
    content and then the reasoning, as in the file, in code points), -1 where it stands in none."""
    owned: np.ndarray
    """bool[tokens], false for context: it has no loss and counts nowhere."""
    offsets: np.ndarray
    """int64[rows + 1]"""
    sequence_offsets: np.ndarray
    """int64[sequences + 1]"""
    first_sequence: np.ndarray
    """int64[rows + 1]"""
    rows: np.ndarray
    """int64[rows], the 0-based row in the file."""
    tokens_cut: np.ndarray
    """int64[sequences], the tokens that each lost to the maximum length."""
    row_ids: list[str]
    datasets: list[str]
    """Of each row, the data set that it says it is from, else its file's name; "" of a block of several."""
    message_roles: list[list[str]]
    """Of each row, the role of each of its messages."""
    message_weights: list[list[float]]
    """Of each row, the `weight` of each of its messages."""
    changed_messages: list[list[int]]
    """Of each row, the assistant's messages whose text the format does not write to the letter."""
    released: np.ndarray | None = None
    """uint8[tokens], the released masks' bits, where asked for."""
    factors: np.ndarray | None = None
    """float32[tokens], what the place of a token in its message multiplies its weight by: `loss_spans` of the
    rows and, after `factors.with_factors`, patterns; None where all are 1."""
    refused: list[BadRow] = field(default_factory=list)
    """The rows whose spans could not be derived."""
    counts: EncodingCounts = field(default_factory=EncodingCounts)
    """What encoding met in the whole file."""

    def __len__(self) -> int:
        return len(self.rows)

    def span(self, index: int) -> slice:
        """Return where row `index` lies in the flat arrays."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def sequences_of(self, index: int) -> range:
        """Return the sequences of row `index`."""
        return range(int(self.first_sequence[index]), int(self.first_sequence[index + 1]))

    def sequence_span(self, sequence: int) -> slice:
        """Return where a sequence lies in the flat arrays."""
        return slice(int(self.sequence_offsets[sequence]), int(self.sequence_offsets[sequence + 1]))

    @property
    def lengths(self) -> np.ndarray:
        """Return int64[rows]: the tokens of each row, over all its sequences."""
        return np.diff(self.offsets)

    @property
    def sequence_lengths(self) -> np.ndarray:
        """Return int64[sequences]: the tokens of each sequence."""
        return np.diff(self.sequence_offsets)

    def weights(self, policy: WeightPolicy) -> np.ndarray:
        """Return float32[tokens]: the loss weight of every token by its kind, its message and its place in
        it, first tokens too (`WeightedData` takes those out); 0 for context.

        Raises:
            UserError: a product of weights is too large for a number.
        """
        out = np.empty(len(self.ids), dtype=np.float32)
        for index in range(len(self)):
            row = self.span(index)
            out[row] = loss_weights(
                self.kinds[row],
                self.messages[row],
                self.message_weights[index],
                policy,
                None if self.released is None else self.released[row],
            )
        out *= self.owned
        with np.errstate(over="ignore", invalid="ignore"):
            out = out if self.factors is None else out * self.factors
        if not np.isfinite(out).all():
            number = int(np.searchsorted(self.offsets, np.argmin(np.isfinite(out)), "right")) - 1
            raise UserError(
                f"row {self.row_ids[number]}: the product of its loss weights is too large for a number"
            )
        return out

    def take(self, indices: np.ndarray) -> "EncodedData":
        """Return the rows at `indices`, int64[m], in that order; the file's counts stay."""
        ranges = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        tokens = np.concatenate([*ranges, np.zeros(0, dtype=np.int64)])
        sequences = np.array([s for i in indices for s in self.sequences_of(int(i))], dtype=np.int64)
        return replace(
            self,
            ids=self.ids[tokens],
            kinds=self.kinds[tokens],
            messages=self.messages[tokens],
            positions=self.positions[tokens],
            owned=self.owned[tokens],
            offsets=bounds(self.lengths[indices]),
            sequence_offsets=bounds(self.sequence_lengths[sequences]),
            first_sequence=bounds(np.diff(self.first_sequence)[indices]),
            rows=self.rows[indices],
            tokens_cut=self.tokens_cut[sequences],
            row_ids=[self.row_ids[i] for i in indices],
            datasets=[self.datasets[i] for i in indices],
            message_roles=[self.message_roles[i] for i in indices],
            message_weights=[self.message_weights[i] for i in indices],
            changed_messages=[self.changed_messages[i] for i in indices],
            released=None if self.released is None else self.released[tokens],
            factors=None if self.factors is None else self.factors[tokens],
        )

    def blocks(self, size: int, keep_kinds: bool = False) -> "EncodedData":
        """Return all owned tokens end to end, cut into blocks of `size` tokens; the last, incomplete block is
        left out unless it is the only one.

        Args:
            keep_kinds: keep each token's kind, message and released bits, as the authors' `group_texts` keeps
                labels; else every token is of kind TEXT (loss on every token).
        """
        count = max(1, int(self.owned.sum()) // size)
        kept = np.flatnonzero(self.owned)[: count * size]
        offsets = np.minimum(np.arange(count + 1) * size, len(kept)).astype(np.int64)
        row_of_token = np.repeat(np.arange(len(self)), self.lengths)[kept]
        rows = [
            range(row_of_token[start], row_of_token[end - 1] + 1) if end > start else range(0)
            for start, end in pairwise(offsets.tolist())
        ]
        names = [{self.datasets[row] for row in of_block} for of_block in rows]
        blocks = replace(
            self,
            ids=self.ids[kept],
            kinds=np.full(len(kept), SpanKind.TEXT, dtype=np.int8),
            messages=np.full(len(kept), -1, dtype=np.int16),
            positions=np.full(len(kept), -1, dtype=np.int32),
            owned=np.ones(len(kept), dtype=bool),
            offsets=offsets,
            sequence_offsets=offsets,
            first_sequence=np.arange(count + 1),
            rows=np.arange(count),
            tokens_cut=np.zeros(count, dtype=np.int64),
            row_ids=[f"block_{i}" for i in range(count)],
            datasets=[next(iter(of_block)) if len(of_block) == 1 else "" for of_block in names],
            message_roles=[[] for _ in range(count)],
            message_weights=[[] for _ in range(count)],
            changed_messages=[[] for _ in range(count)],
            released=None,
            factors=None,
        )
        if not keep_kinds:
            return blocks
        return replace(
            blocks,
            kinds=self.kinds[kept],
            messages=self._messages_of_blocks(kept, row_of_token, offsets),
            positions=self.positions[kept],
            message_roles=[
                [role for row in of_block for role in self.message_roles[row]] for of_block in rows
            ],
            message_weights=[
                [weight for row in of_block for weight in self.message_weights[row]] for of_block in rows
            ],
            released=None if self.released is None else self.released[kept],
            factors=None if self.factors is None else self.factors[kept],
        )

    def _messages_of_blocks(
        self, kept: np.ndarray, row_of_token: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray:
        """Return the message of each kept token, numbered within its block over all rows that reach into it,
        -1 for none."""
        first = np.concatenate([[0], np.cumsum([len(weights) for weights in self.message_weights])])
        numbers = np.where(self.messages[kept] < 0, -1, first[row_of_token] + self.messages[kept])
        for start, end in pairwise(offsets.tolist()):
            if end > start:
                low = first[row_of_token[start]]
                numbers[start:end] = np.where(numbers[start:end] < 0, -1, numbers[start:end] - low)
        # A block of very many short messages has more than int16 counts.
        dtype = np.int16 if numbers.max(initial=0) <= np.iinfo(np.int16).max else np.int32
        return numbers.astype(dtype)


def bounds(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return int64[n + 1]: where stretches of these lengths begin and end, laid end to end."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)


def collect(encoded: Iterable[EncodedRow | BadRow]) -> EncodedData:
    """Return encoded rows as flat arrays, the refused ones listed."""
    good: list[EncodedRow] = []
    refused: list[BadRow] = []
    for item in encoded:
        (refused if isinstance(item, BadRow) else good).append(item)  # type: ignore[arg-type]
    sequences = [sequence for row in good for sequence in row.sequences]

    def flat(arrays: Iterable[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([*arrays, np.zeros(0, dtype=dtype)]).astype(dtype)

    factors = None
    if any(sequence.factors is not None for sequence in sequences):
        factors = flat(
            (np.ones(len(s.kinds)) if s.factors is None else s.factors for s in sequences), np.float32
        )
    released = [sequence.released for sequence in sequences if sequence.released is not None]
    return EncodedData(
        ids=flat([sequence.tokens.ids for sequence in sequences], np.int32),
        kinds=flat([sequence.kinds for sequence in sequences], np.int8),
        messages=flat([sequence.messages for sequence in sequences], np.int16),
        positions=flat([sequence.positions for sequence in sequences], np.int32),
        owned=flat([sequence.owned for sequence in sequences], bool),
        offsets=bounds([sum(len(sequence.kinds) for sequence in row.sequences) for row in good]),
        sequence_offsets=bounds([len(sequence.kinds) for sequence in sequences]),
        first_sequence=bounds([len(row.sequences) for row in good]),
        rows=np.array([row.conversation.row for row in good], dtype=np.int64),
        tokens_cut=np.array([sequence.tokens_cut for sequence in sequences], dtype=np.int64),
        row_ids=[row.conversation.id for row in good],
        datasets=[row.conversation.dataset for row in good],
        message_roles=[[m.role for m in row.conversation.messages] for row in good],
        message_weights=[[m.weight for m in row.conversation.messages] for row in good],
        changed_messages=[list(row.changed_messages) for row in good],
        released=flat(released, np.uint8) if released else None,
        factors=factors,
        refused=refused,
        counts=count_rows(good),
    )
