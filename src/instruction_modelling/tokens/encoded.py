"""A file's rows as token ids, span kinds and message indices: what training reads, cached between runs.

Loss weights are not among them: they are derived from the kinds when they are needed, so another arm, another
weight or another normalisation never tokenises again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

import numpy as np

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded_rows import EncodingCounts
from instruction_modelling.tokens.large_arrays import new_array
from instruction_modelling.tokens.row_values import Chosen
from instruction_modelling.tokens.weights import WeightPolicy, loss_weights

# Tokens of the rows that are gone through together: what is computed of them is in memory.
_TOKENS_AT_ONCE = 2**20
# The arrays with a value for each token, those that not all data have at the end.
_OF_TOKENS = ("ids", "kinds", "messages", "positions", "owned", "released", "factors")
# What is said of each row beside its arrays.
_OF_ROWS = ("row_ids", "datasets", "message_roles", "message_weights", "changed_messages")


@dataclass
class EncodedData:
    """The usable rows of a file, flat. Row i has tokens offsets[i]:offsets[i+1] of the flat arrays: those of
    its sequences, one after another. Sequence s has tokens sequence_offsets[s]:sequence_offsets[s+1]; row i
    has the sequences first_sequence[i]:first_sequence[i+1]. A row is one example, whatever its sequences.

    The arrays may be mapped from a file, and are only read."""

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
    row_ids: Sequence[str]
    datasets: Sequence[str]
    """Of each row, the data set that it says it is from, else its file's name; "" of a block of several."""
    message_roles: Sequence[list[str]]
    """Of each row, the role of each of its messages."""
    message_weights: Sequence[list[float]]
    """Of each row, the `weight` of each of its messages."""
    changed_messages: Sequence[list[int]]
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

    def lengths_of(self, rows: range) -> np.ndarray:
        """Return int64[len(rows)]: the tokens of consecutive rows."""
        return np.diff(self.offsets[rows.start : rows.stop + 1])

    @property
    def sequence_lengths(self) -> np.ndarray:
        """Return int64[sequences]: the tokens of each sequence."""
        return np.diff(self.sequence_offsets)

    def chunks(self) -> Iterator[range]:
        """Yield all rows in order, a few at once: those of about a million tokens, or one longer row."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + _TOKENS_AT_ONCE, "right")) - 1
            yield range(first, max(first + 1, last))
            first = max(first + 1, last)

    def weights(self, policy: WeightPolicy) -> np.ndarray:
        """Return float32[tokens]: the loss weight of every token by its kind, its message and its place in
        it, first tokens too (`WeightedData` takes those out); 0 for context.

        Raises:
            UserError: a product of weights is too large for a number.
        """
        out = new_array(len(self.ids), np.float32)
        for rows in self.chunks():
            tokens = slice(int(self.offsets[rows.start]), int(self.offsets[rows.stop]))
            of_rows = [self.message_weights[row] for row in rows]
            # The messages of all these rows, numbered through.
            first = bounds([len(of_row) for of_row in of_rows])[:-1]
            messages = self.messages[tokens]
            numbers = messages + np.repeat(first, self.lengths_of(rows))
            weights = loss_weights(
                self.kinds[tokens],
                np.where(messages < 0, -1, numbers),
                list(chain.from_iterable(of_rows)),
                policy,
                None if self.released is None else self.released[tokens],
            )
            weights *= self.owned[tokens]
            with np.errstate(over="ignore", invalid="ignore"):
                weights = weights if self.factors is None else weights * self.factors[tokens]
            if not np.isfinite(weights).all():
                token = tokens.start + int(np.argmin(np.isfinite(weights)))
                number = int(np.searchsorted(self.offsets, token, "right")) - 1
                raise UserError(
                    f"row {self.row_ids[number]}: the product of its loss weights is too large for a number"
                )
            out[tokens] = weights
        return out

    def take(self, indices: np.ndarray) -> "EncodedData":
        """Return the rows at `indices`, int64[m], in that order; the file's counts stay."""
        indices = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[indices]
        edges = bounds(lengths)
        # Rows that follow one another in the data, too, are copied at once.
        runs = bounds([len(run) for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)])
        arrays: dict[str, np.ndarray | None] = {}
        for name in _OF_TOKENS:
            source = getattr(self, name)
            arrays[name] = None if source is None else new_array(int(edges[-1]), source.dtype)
            for start, stop in pairwise(runs.tolist()):
                if source is not None and stop > start:
                    begin, end = self.offsets[indices[start]], self.offsets[indices[stop - 1] + 1]
                    arrays[name][edges[start] : edges[stop]] = source[begin:end]  # type: ignore[index]
        counts = np.diff(self.first_sequence)[indices]
        first = bounds(counts)
        sequences = np.arange(first[-1]) + np.repeat(self.first_sequence[indices] - first[:-1], counts)
        return replace(
            self,
            **arrays,  # type: ignore[arg-type]
            **{name: Chosen(getattr(self, name), indices) for name in _OF_ROWS},  # type: ignore[arg-type]
            offsets=edges,
            sequence_offsets=bounds(self.sequence_lengths[sequences]),
            first_sequence=first,
            rows=self.rows[indices],
            tokens_cut=self.tokens_cut[sequences],
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
