"""A file's rows as token ids, span kinds and message indices: what training reads, cached between runs.

Loss weights are not among them: they are derived from the kinds when they are needed, so another arm, another
weight or another normalisation never tokenises again."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.chat.spans import Rendered, SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.tokens.encoder import TextEncoder, Tokens
from instruction_modelling.tokens.released_masks import ReleasedMasks
from instruction_modelling.tokens.weights import WeightPolicy, loss_weights, span_kinds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Part of the cache's key: to be raised when the meaning of what is cached changes.
CACHE_LAYOUT = 2
# Rows that are rendered and tokenised together.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class EncodedRow:
    """One row, cut at the maximum length: the arrays are as long as what is kept of it."""

    conversation: Conversation
    rendered: Rendered
    tokens: Tokens
    kinds: np.ndarray
    """int8[n], a `SpanKind` for each token."""
    messages: np.ndarray
    """int16[n], the index of the token's message, -1 for none."""
    released: np.ndarray | None
    """uint8[n], the released masks' bits, where asked for."""
    tokens_cut: int
    """How many tokens were cut off."""
    straddling: int
    """How many tokens, of the cut off ones too, have characters of two kinds."""

    def weights(self, policy: WeightPolicy) -> np.ndarray:
        """Return float32[n]: the loss weight of each token under `policy`."""
        return loss_weights(
            self.kinds, self.messages, [m.weight for m in self.conversation.messages], policy, self.released
        )


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
        parts = [state, names, chat_format.name, chat_format.template, max_seq_length, released, CACHE_LAYOUT]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode(self, conversations: Iterable[Conversation]) -> Iterator[EncodedRow | BadRow]:
        """Yield each conversation in order, encoded or, where it cannot be, as a `BadRow`."""
        batch: list[tuple[Conversation, Rendered | BadRow]] = []
        for conversation in conversations:
            try:
                item: Rendered | BadRow = self.chat_format.render(conversation)
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
        self, batch: Sequence[tuple[Conversation, Rendered | BadRow]]
    ) -> Iterator[EncodedRow | BadRow]:
        # The released code lets the tokenizer read control tokens in content.
        tokens = iter(
            self.text_encoder.encode(
                [item for _, item in batch if isinstance(item, Rendered)],
                control_text_is_text=self._released is None,
            )
        )
        for conversation, item in batch:
            yield item if isinstance(item, BadRow) else self._row(conversation, item, next(tokens))

    def _row(self, conversation: Conversation, rendered: Rendered, tokens: Tokens) -> EncodedRow:
        kinds, messages, straddling = span_kinds(tokens, rendered)
        length = self.max_seq_length
        kept = Tokens(
            tokens.ids[:length],
            tokens.start[:length],
            tokens.end[:length],
            tokens.is_control[:length],
            tokens.control_text,
        )
        return EncodedRow(
            conversation,
            rendered,
            kept,
            kinds[:length],
            messages[:length],
            self._released.trained(conversation, kept.ids) if self._released else None,
            tokens_cut=max(0, len(tokens.ids) - length),
            straddling=straddling,
        )


@dataclass
class EncodedData:
    """The usable rows of a file, flat. Row i has tokens offsets[i]:offsets[i+1] of the flat arrays."""

    ids: np.ndarray
    """int32[tokens]"""
    kinds: np.ndarray
    """int8[tokens], a `SpanKind` for each."""
    messages: np.ndarray
    """int16[tokens], the index of the token's message in its row, -1 for none."""
    offsets: np.ndarray
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
    truncated_rows: int = 0
    tokens_cut: int = 0
    straddling: int = 0
    """How many tokens have characters of two kinds."""
    control_text_rows: int = 0
    """How many rows have data that spells a control token."""

    def __len__(self) -> int:
        return len(self.rows)

    def span(self, index: int) -> slice:
        """Return where row `index` lies in the flat arrays."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    @property
    def lengths(self) -> np.ndarray:
        """Return int64[rows]: the tokens of each row."""
        return np.diff(self.offsets)

    def weights(self, policy: WeightPolicy) -> np.ndarray:
        """Return float32[tokens]: the loss weight of every token by its kind and message, first tokens too
        (`WeightedData` takes those out)."""
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
        return out

    def take(self, indices: np.ndarray) -> "EncodedData":
        """Return the rows at `indices`, int64[m], in that order; the file's counts stay."""
        ranges = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        tokens = np.concatenate([*ranges, np.zeros(0, dtype=np.int64)])
        return replace(
            self,
            ids=self.ids[tokens],
            kinds=self.kinds[tokens],
            messages=self.messages[tokens],
            offsets=np.concatenate([[0], np.cumsum(self.lengths[indices])]).astype(np.int64),
            rows=self.rows[indices],
            row_ids=[self.row_ids[i] for i in indices],
            message_weights=[self.message_weights[i] for i in indices],
            released=None if self.released is None else self.released[tokens],
        )

    def blocks(self, size: int, keep_kinds: bool = False) -> "EncodedData":
        """Return all tokens end to end, cut into blocks of `size` tokens; the last, incomplete block is left
        out unless it is the only one.

        Args:
            keep_kinds: keep each token's kind, message and released bits, as the authors' `group_texts` keeps
                labels; else every token is of kind TEXT (loss on every token).
        """
        count = max(1, len(self.ids) // size)
        total = min(len(self.ids), count * size)
        offsets = np.minimum(np.arange(count + 1) * size, total).astype(np.int64)
        blocks = replace(
            self,
            ids=self.ids[:total],
            kinds=np.full(total, SpanKind.TEXT, dtype=np.int8),
            messages=np.full(total, -1, dtype=np.int16),
            offsets=offsets,
            rows=np.arange(count),
            row_ids=[f"block_{i}" for i in range(count)],
            message_weights=[[] for _ in range(count)],
            released=None,
        )
        if not keep_kinds:
            return blocks
        messages, message_weights = self._messages_of_blocks(offsets)
        return replace(
            blocks,
            kinds=self.kinds[:total],
            messages=messages,
            message_weights=message_weights,
            released=None if self.released is None else self.released[:total],
        )

    def _messages_of_blocks(self, offsets: np.ndarray) -> tuple[np.ndarray, list[list[float]]]:
        """Return the message of each token, numbered within its block, -1 for none, and the messages' weights
        of each block: those of all rows that reach into it, in their order."""
        first = np.concatenate([[0], np.cumsum([len(weights) for weights in self.message_weights])])
        weights = [weight for row in self.message_weights for weight in row]
        row_of_token = np.repeat(np.arange(len(self)), self.lengths)[: offsets[-1]]
        numbers = np.where(
            self.messages[: offsets[-1]] < 0, -1, first[row_of_token] + self.messages[: offsets[-1]]
        )
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


def collect(encoded: Iterable[EncodedRow | BadRow]) -> EncodedData:
    """Return encoded rows as flat arrays, the refused ones listed."""
    good: list[EncodedRow] = []
    refused: list[BadRow] = []
    for item in encoded:
        (refused if isinstance(item, BadRow) else good).append(item)  # type: ignore[arg-type]

    def flat(arrays: Iterable[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([*arrays, np.zeros(0, dtype=dtype)]).astype(dtype)

    return EncodedData(
        ids=flat([row.tokens.ids for row in good], np.int32),
        kinds=flat([row.kinds for row in good], np.int8),
        messages=flat([row.messages for row in good], np.int16),
        offsets=np.concatenate([[0], np.cumsum([len(row.kinds) for row in good])]).astype(np.int64),
        rows=np.array([row.conversation.row for row in good], dtype=np.int64),
        row_ids=[row.conversation.id for row in good],
        message_weights=[[m.weight for m in row.conversation.messages] for row in good],
        released=flat([row.released for row in good if row.released is not None], np.uint8)
        if any(row.released is not None for row in good)
        else None,
        refused=refused,
        truncated_rows=sum(row.tokens_cut > 0 for row in good),
        tokens_cut=sum(row.tokens_cut for row in good),
        straddling=sum(row.straddling for row in good),
        control_text_rows=sum(row.tokens.control_text for row in good),
    )
