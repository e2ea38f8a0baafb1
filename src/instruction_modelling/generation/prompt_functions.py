"""A function of the user's that writes the prompts of chats: --chat_formatting_function."""

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.formats import bos_ids
from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptFunction:
    """A function named by its place, as one of a chat's messages alone.

    It is called with whatever of the following it has an argument for: `tokenizer`, `bos` and `eos` (the
    tokenizer's, so that a format ends an answer as training does), and `add_bos=False`, since the tokenizer
    writes the first BOS. A second argument without a default is the tokenizer, whatever its name.

    Raises:
        UserError: there is no such function, or it has an argument that nothing here can fill.
    """

    def __init__(self, dotted: str, tokenizer: "PreTrainedTokenizerBase"):
        self._dotted = dotted
        self._function = _load(dotted)
        self._given, self._named = self._arguments(tokenizer)
        bos = tokenizer.bos_token
        # Where the tokenizer puts BOS in front of every text, one that the function wrote would be a second.
        self._doubled = str(bos) if bos and tokenizer.bos_token_id in bos_ids(tokenizer) else ""

    def __call__(self, messages: list[dict[str, str]]) -> str:
        """Return the text of a chat up to where the next answer begins, without the BOS of the tokenizer.

        Raises:
            UserError: the function fails on this chat, or returns no text.
        """
        try:
            text = self._function(messages, *self._given, **self._named)
        except Exception as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise UserError(
                f"--chat_formatting_function {self._dotted} fails on a chat of {roles}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(text, str):
            raise UserError(
                f"--chat_formatting_function {self._dotted} returned a {type(text).__name__}; "
                "it must return the prompt as text"
            )
        return text.removeprefix(self._doubled)

    def _arguments(self, tokenizer: "PreTrainedTokenizerBase") -> tuple[list[Any], dict[str, Any]]:
        """Return what the function is given behind the messages: by position, and by name."""
        known: dict[str, Any] = {"tokenizer": tokenizer, "add_bos": False, "add_generation_prompt": True}
        known |= dict.fromkeys(("bos", "bos_token"), str(tokenizer.bos_token or ""))
        if tokenizer.eos_token:
            known |= dict.fromkeys(("eos", "eos_token"), str(tokenizer.eos_token))
        try:
            first, *others = inspect.signature(self._function).parameters.values()
        except ValueError:
            raise UserError(
                f"--chat_formatting_function {self._dotted} takes no messages: it must be a function of a "
                "list of messages, and may take the tokenizer too"
            ) from None
        by_position: list[Any] = []
        by_name: dict[str, Any] = {}
        unknown = []
        for number, argument in enumerate(others):
            required = argument.default is argument.empty
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                continue
            if argument.name not in known and not (
                number == 0 and required and first.kind != first.VAR_POSITIONAL
            ):
                unknown += [argument.name] if required else []
                continue
            value = known.get(argument.name, tokenizer)
            if argument.kind == argument.POSITIONAL_ONLY and number == len(by_position):
                by_position.append(value)
            elif argument.kind != argument.POSITIONAL_ONLY:
                by_name[argument.name] = value
        if unknown:
            raise UserError(
                f"--chat_formatting_function {self._dotted}: nothing here can fill its "
                f"{', '.join(unknown)}; it may take messages, tokenizer, bos, eos and add_bos"
            )
        return by_position, by_name


def _load(dotted: str) -> Callable[..., Any]:
    module, _, name = dotted.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    # The module is the user's: whatever goes wrong in it is told in one line.
    except Exception as error:
        raise UserError(
            f"--chat_formatting_function {dotted}: there is no such function ({error}); one of this "
            "project's is eval.templates.create_prompt_with_tulu_chat_format"
        ) from error
    if not callable(function):
        raise UserError(f"--chat_formatting_function {dotted} is a {type(function).__name__}, no function")
    return function  # type: ignore[no-any-return]
