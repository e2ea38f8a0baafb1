"""Prompts of chats and texts as token ids: the same ids whichever engine completes them."""

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.messages import Message
from instruction_modelling.tokens.encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptMaker:
    """Makes the prompts of a model.

    Args:
        chat_format: as in training: auto, tulu, tokenizer or a Jinja file.
        function: dotted name of a function that renders messages instead, or None.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat_format: str, function: str | None):
        self._tokenizer = tokenizer
        self._function = _load(function) if function else None
        self._format = load_chat_format(chat_format, tokenizer)
        self._encoder = TextEncoder(tokenizer)
        self.name = function or self._format.name
        # A function's chats end as Tülu's do: with the tokenizer's EOS, which generation configs name.
        self.end_strings: tuple[str, ...] = (
            (str(tokenizer.eos_token),) if function and tokenizer.eos_token else self._format.end_strings
        )

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """See `Engine.chat_ids`."""
        if self._function:
            return self.plain_ids(self._function(messages))
        conversation = Conversation(
            row=0,
            line=0,
            id="prompt",
            dataset="prompt",
            messages=tuple(Message(role=one["role"], content=one["content"]) for one in messages),
        )
        try:
            return self._encoder.encode([self._format.render(conversation, generation_prompt=True)])[
                0
            ].ids.tolist()
        except RowRefused as refused:
            raise UserError(
                f"a chat of {', '.join(one['role'] for one in messages)} cannot be rendered: "
                f"{refused.reason}: "
                f"{refused}"
            ) from refused

    def plain_ids(self, text: str) -> list[int]:
        """See `Engine.plain_ids`."""
        return list(self._tokenizer(text)["input_ids"])


def _load(dotted: str) -> Callable[[list[dict[str, str]]], str]:
    """The function of that name, as one of messages alone: the tokenizer adds BOS, so the function must
    not."""
    module, _, name = dotted.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
        takes_bos = "add_bos" in inspect.signature(function).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"--chat_formatting_function {dotted}: there is no such function ({error}); one of this "
            "project's is "
            "eval.templates.create_prompt_with_tulu_chat_format"
        ) from error
    return (
        (lambda messages: str(function(messages, add_bos=False)))
        if takes_bos
        else lambda messages: str(function(messages))
    )
