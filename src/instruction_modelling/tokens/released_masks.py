"""The label masks of the authors' released code (src/finetune.py at 325b77e), token for token.

They differ from the paper's text. Its IT mask finds the spans by tokenising prefixes of the conversation,
each with the newline that follows a message, so the newline after a response's EOS is trained where another
message follows. Its IM mask (`--use_lm_loss`) searches the token ids for three texts tokenised alone, with
BOS in front: only BOS and the role header at the start of a conversation can match, every later header is
trained on."""

from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.rows.conversations import Conversation, Message
from instruction_modelling.tokens.weights import IM_BIT, IT_BIT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What the IM mask searches. The first is the authors' slip for the assistant's header.
SEARCHED_TEXTS = ("wa\n", "<|system|>\n", "<|user|>\n")


class ReleasedMasks:
    """Which tokens of a Tülu-format row the released code trains on."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_seq_length: int):
        self._tokenizer, self._max = tokenizer, max_seq_length
        self._eos = str(tokenizer.eos_token)
        self._searched = [np.array(self._ids(text), dtype=np.int64) for text in SEARCHED_TEXTS]

    def _ids(self, text: str) -> list[int]:
        # The released code lets the tokenizer read control tokens in content; so do this and `RowEncoder`.
        return self._tokenizer(text, max_length=self._max, truncation=True)["input_ids"]

    def _turn(self, message: Message) -> str:
        end = self._eos if message.role == "assistant" else ""
        return f"<|{message.role}|>\n{message.content.strip()}{end}\n"

    def trained(self, conversation: Conversation, ids: np.ndarray) -> np.ndarray:
        """Return uint8[n] for the row's n tokens, `ids` (cut at the maximum length): `IT_BIT` where the IT
        mask trains, `IM_BIT` where the IM mask does."""
        if conversation.plain:
            it_mask = self._plain_mask(conversation, len(ids))
            im_mask = np.ones(len(ids), dtype=bool)
        else:
            it_mask, im_mask = self._prefix_mask(conversation, len(ids)), self._search_mask(ids)
        return (it_mask * IT_BIT + im_mask * IM_BIT).astype(np.uint8)

    def _plain_mask(self, conversation: Conversation, length: int) -> np.ndarray:
        mask = np.ones(length, dtype=bool)
        mask[: len(self._ids(conversation.messages[0].content))] = False
        return mask

    def _prefix_mask(self, conversation: Conversation, length: int) -> np.ndarray:
        """Return bool[length], the IT mask: false in the span of each message that is not the assistant's."""
        mask = np.ones(length, dtype=bool)
        messages, text = conversation.messages, ""
        for index, message in enumerate(messages):
            before, text = text, text + self._turn(message)
            if message.role == "assistant":
                continue
            start = 0 if index == 0 else len(self._ids(before))
            answered = index + 1 < len(messages) and messages[index + 1].role == "assistant"
            end = len(self._ids(text + "<|assistant|>\n" if answered else text))
            mask[start:end] = False
            if end >= self._max:
                break
        return mask

    def _search_mask(self, ids: np.ndarray) -> np.ndarray:
        """Return bool[n], the IM mask: false where the ids of a searched text are found."""
        mask = np.ones(len(ids), dtype=bool)
        for pattern in self._searched:
            if len(pattern) > len(ids):
                continue
            windows = np.lib.stride_tricks.sliding_window_view(ids, len(pattern))
            for start in np.flatnonzero((windows == pattern).all(axis=1)):
                mask[start : start + len(pattern)] = False
        return mask
