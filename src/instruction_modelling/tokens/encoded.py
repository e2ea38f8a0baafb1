"""A file's rows as token ids, span kinds and message indices: what training reads, cached between runs.

Loss weights are not among them: they are derived from the kinds when they are needed, so another arm, another
weight or another normalisation never tokenises again."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.chat.spans import RESPONSE_KINDS, Rendered, SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.tokens.encoder import TextEncoder, Tokens
from instruction_modelling.tokens.released_masks import ReleasedMasks
from instruction_modelling.tokens.weights import WeightPolicy, loss_weights, span_kinds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Part of the cache's key: to be raised when the meaning of what is cached changes.
CACHE_LAYOUT = 3
# Rows that are rendered and tokenised together.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class EncodedSequence:
    """One sequence of a row, cut at the maximum length: the arrays are as long as what is kept of it."""

    rendered: Rendered
    tokens: Tokens
    kinds: np.ndarray
    """int8[n], a `SpanKind` for each token."""
    messages: np.ndarray
    """int16[n], the index of the token's message, -1 for none."""
    owned: np.ndarray
    """bool[n], whether the token is trained here; false for context, which an earlier sequence trains."""
    released: np.ndarray | None
    """uint8[n], the released masks' bits, where asked for."""
    tokens_cut: int
    """How many tokens were cut off."""
    straddling: int
    """How many tokens, of the cut off ones too, have characters of two kinds."""

    def weights(self, message_weights: Sequence[float], policy: WeightPolicy) -> np.ndarray:
        """Return float32[n]: the loss weight of each token under `policy`; 0 for context."""
        return loss_weights(self.kinds, self.messages, message_weights, policy, self.released) * self.owned


@dataclass(frozen=True)
class EncodedRow:
    """One row: mostly one sequence, several where the chat template rewrites earlier turns."""

    conversation: Conversation
    sequences: tuple[EncodedSequence, ...]

    def weights(self, policy: WeightPolicy) -> list[np.ndarray]:
        """Return float32[n] for each sequence: the loss weight of each token under `policy`."""
        message_weights = [message.weight for message in self.conversation.messages]
        return [sequence.weights(message_weights, policy) for sequence in self.sequences]

    @property
    def first(self) -> EncodedSequence:
        """Return the first sequence, which begins with the conversation's first message."""
        return self.sequences[0]

    @property
    def kinds(self) -> np.ndarray:
        """Return int8[n], the kinds of the owned tokens of all sequences: each message's once."""
        return np.concatenate([sequence.kinds[sequence.owned] for sequence in self.sequences])

    @property
    def messages(self) -> np.ndarray:
        """Return int16[n], the messages of the owned tokens of all sequences."""
        return np.concatenate([sequence.messages[sequence.owned] for sequence in self.sequences])

    @property
    def length(self) -> int:
        """Return the number of tokens of all sequences, context too."""
        return sum(len(sequence.kinds) for sequence in self.sequences)

    @property
    def tokens_cut(self) -> int:
        """Return how many tokens were cut off its sequences."""
        return sum(sequence.tokens_cut for sequence in self.sequences)

    @property
    def straddling(self) -> int:
        """Return how many tokens have characters of two kinds."""
        return sum(sequence.straddling for sequence in self.sequences)


class RowEncoder:
    """Conversations to rows of tokens, with one tokenizer, chat format and maximum length."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        chat_format: ChatFormat,
        max_seq_length: int,
        released: bool = False,
    ):
        """Take what decides about ids and kinds; `released`: derive the released code's masks, too,
        which are defined for the Tülu format alone."""
        self.chat_format, self.max_seq_length = chat_format, max_seq_length
        self.text_encoder = TextEncoder(tokenizer)
        self._released = ReleasedMasks(tokenizer, max_seq_length) if released else None
        state = self.text_encoder.fingerprint()
        # Templates write the tokens by their names (`eos_token`), which the engine does not know.
        names = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
        parts = [state, names, chat_format.identity, max_seq_length, released, CACHE_LAYOUT]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode(self, conversations: Iterable[Conversation]) -> Iterator[EncodedRow | BadRow]:
        """Yield each conversation in order, encoded or, where it cannot be, as a `BadRow`."""
        batch: list[tuple[Conversation, tuple[Rendered, ...] | BadRow]] = []
        for conversation in conversations:
            try:
                item: tuple[Rendered, ...] | BadRow = self.chat_format.sequences(conversation)
            except RowRefused as refused:
                item = BadRow(
                    conversation.row, conversation.line, conversation.id, refused.reason, refused.detail
                )
            batch.append((conversation, item))
            if len(batch) == ROWS_AT_ONCE:
                yield from self._encode_batch(batch)
                batch = []
        yield from self._encode_batch(batch)

    def _encode_batch(
        self, batch: Sequence[tuple[Conversation, tuple[Rendered, ...] | BadRow]]
    ) -> Iterator[EncodedRow | BadRow]:
        texts = [rendered for _, item in batch if not isinstance(item, BadRow) for rendered in item]
        # The released code lets the tokenizer read control tokens in content.
        tokens = iter(self.text_encoder.encode(texts, control_text_is_text=self._released is None))
        for conversation, item in batch:
            if isinstance(item, BadRow):
                yield item
            else:
                sequences = [self._sequence(conversation, rendered, next(tokens)) for rendered in item]
                yield EncodedRow(conversation, tuple(sequences))

    def _sequence(self, conversation: Conversation, rendered: Rendered, tokens: Tokens) -> EncodedSequence:
        kinds, messages, straddling = span_kinds(tokens, rendered)
        length = self.max_seq_length
        kept = Tokens(
            tokens.ids[:length],
            tokens.start[:length],
            tokens.end[:length],
            tokens.is_control[:length],
            tokens.control_text,
        )
        return EncodedSequence(
            rendered,
            kept,
            kinds[:length],
            messages[:length],
            owned_tokens(rendered, kept, kinds[:length], messages[:length]),
            self._released.trained(conversation, kept.ids) if self._released else None,
            tokens_cut=max(0, len(tokens.ids) - length),
            straddling=straddling,
        )


def owned_tokens(rendered: Rendered, tokens: Tokens, kinds: np.ndarray, messages: np.ndarray) -> np.ndarray:
    """Return bool[n]: the tokens that a sequence owns, by place and message, never by weight.

    It owns what lies behind the last message of the sequence before it, other than texts of earlier messages
    that the template repeats there; definitions of tools belong to the first sequence."""
    if not rendered.part:
        return np.ones(len(tokens.ids), dtype=bool)
    repeated = ((messages >= 0) & (messages < rendered.first_message)) | (kinds == SpanKind.TOOLS)
    return (tokens.start >= rendered.owned_start) & ~repeated


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
    row_ids: list[str]
    message_weights: list[list[float]]
    """Of each row, the `weight` of each of its messages."""
    released: np.ndarray | None = None
    """uint8[tokens], the released masks' bits, where asked for."""
    refused: list[BadRow] = field(default_factory=list)
    """The rows whose spans could not be derived."""
    counts: "EncodingCounts" = field(default_factory=lambda: EncodingCounts())
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
        """Return float32[tokens]: the loss weight of every token by its kind and message, first tokens too
        (`WeightedData` takes those out); 0 for context."""
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
        return out * self.owned

    def take(self, indices: np.ndarray) -> "EncodedData":
        """Return the rows at `indices`, int64[m], in that order; the file's counts stay."""
        ranges = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        tokens = np.concatenate([*ranges, np.zeros(0, dtype=np.int64)])
        sequences = [self.sequence_lengths[s] for i in indices for s in self.sequences_of(int(i))]
        return replace(
            self,
            ids=self.ids[tokens],
            kinds=self.kinds[tokens],
            messages=self.messages[tokens],
            owned=self.owned[tokens],
            offsets=bounds(self.lengths[indices]),
            sequence_offsets=bounds(sequences),
            first_sequence=bounds(np.diff(self.first_sequence)[indices]),
            rows=self.rows[indices],
            row_ids=[self.row_ids[i] for i in indices],
            message_weights=[self.message_weights[i] for i in indices],
            released=None if self.released is None else self.released[tokens],
        )

    def blocks(self, size: int, keep_kinds: bool = False) -> "EncodedData":
        """Return all owned tokens end to end, cut into blocks of `size` tokens; the last, incomplete block is
        left out unless it is the only one.

        Args:
            keep_kinds: keep each token's kind, message and released bits, as the authors' `group_texts` keeps
                labels; else every token is of kind TEXT (loss on every token).
        """
        ids = self.ids[self.owned]
        count = max(1, len(ids) // size)
        total = min(len(ids), count * size)
        offsets = np.minimum(np.arange(count + 1) * size, total).astype(np.int64)
        blocks = replace(
            self,
            ids=ids[:total],
            kinds=np.full(total, SpanKind.TEXT, dtype=np.int8),
            messages=np.full(total, -1, dtype=np.int16),
            owned=np.ones(total, dtype=bool),
            offsets=offsets,
            sequence_offsets=offsets,
            first_sequence=np.arange(count + 1),
            rows=np.arange(count),
            row_ids=[f"block_{i}" for i in range(count)],
            message_weights=[[] for _ in range(count)],
            released=None,
        )
        if not keep_kinds:
            return blocks
        kept = np.flatnonzero(self.owned)[:total]
        messages, message_weights = self._messages_of_blocks(kept, offsets)
        return replace(
            blocks,
            kinds=self.kinds[kept],
            messages=messages,
            message_weights=message_weights,
            released=None if self.released is None else self.released[kept],
        )

    def _messages_of_blocks(
        self, kept: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, list[list[float]]]:
        """Return the message of each kept token, numbered within its block, -1 for none, and the messages'
        weights of each block: those of all rows that reach into it, in their order."""
        first = np.concatenate([[0], np.cumsum([len(weights) for weights in self.message_weights])])
        weights = [weight for row in self.message_weights for weight in row]
        row_of_token = np.repeat(np.arange(len(self)), self.lengths)[kept]
        numbers = np.where(self.messages[kept] < 0, -1, first[row_of_token] + self.messages[kept])
        of_block: list[list[float]] = []
        for start, end in pairwise(offsets.tolist()):
            if start == end:
                of_block.append([])
                continue
            low, high = first[row_of_token[start]], first[row_of_token[end - 1] + 1]
            of_block.append(weights[low:high])
            numbers[start:end] = np.where(numbers[start:end] < 0, -1, numbers[start:end] - low)
        # A block of very many short messages has more than int16 counts.
        dtype = np.int16 if numbers.max(initial=0) <= np.iinfo(np.int16).max else np.int32
        return numbers.astype(dtype), of_block


@dataclass(frozen=True)
class EncodingCounts:
    """What encoding a file met, counted over all its usable rows."""

    truncated_rows: int = 0
    """Rows that were cut at the maximum length, in one of their sequences or more."""
    tokens_cut: int = 0
    straddling: int = 0
    """Tokens that have characters of two kinds."""
    control_text_rows: int = 0
    """Rows whose data spells a control token."""
    turns_cut: int = 0
    """Assistant's turns that lie behind the maximum length as a whole."""
    prompts_differ: int = 0
    """Turns before which the generation prompt opens something that the turn does not go on with."""


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

    released = [sequence.released for sequence in sequences if sequence.released is not None]
    return EncodedData(
        ids=flat([sequence.tokens.ids for sequence in sequences], np.int32),
        kinds=flat([sequence.kinds for sequence in sequences], np.int8),
        messages=flat([sequence.messages for sequence in sequences], np.int16),
        owned=flat([sequence.owned for sequence in sequences], bool),
        offsets=bounds([sum(len(sequence.kinds) for sequence in row.sequences) for row in good]),
        sequence_offsets=bounds([len(sequence.kinds) for sequence in sequences]),
        first_sequence=bounds([len(row.sequences) for row in good]),
        rows=np.array([row.conversation.row for row in good], dtype=np.int64),
        row_ids=[row.conversation.id for row in good],
        message_weights=[[m.weight for m in row.conversation.messages] for row in good],
        released=flat(released, np.uint8) if released else None,
        refused=refused,
        counts=count_rows(good),
    )


def count_rows(rows: Iterable[EncodedRow]) -> EncodingCounts:
    """Return what encoding these rows met."""
    totals: Counter[str] = Counter()
    for row in rows:
        parts = row.sequences
        totals["truncated_rows"] += any(part.tokens_cut for part in parts)
        totals["control_text_rows"] += any(part.tokens.control_text for part in parts)
        for part in parts:
            totals["tokens_cut"] += part.tokens_cut
            totals["straddling"] += part.straddling
            totals["prompts_differ"] += part.rendered.prompts_differ
            totals["turns_cut"] += turns_cut(part)
    return EncodingCounts(**totals)


def turns_cut(sequence: EncodedSequence) -> int:
    """Return how many of the assistant's turns that a sequence owns lost all their tokens to the length."""
    if not sequence.tokens_cut:
        return 0
    rendered = sequence.rendered
    owned = {
        span.message
        for span in rendered.spans
        if span.kind in RESPONSE_KINDS and span.message >= rendered.first_message
    }
    of_response = np.isin(sequence.kinds, RESPONSE_KINDS)
    return len(owned - set(sequence.messages[of_response].tolist()))
