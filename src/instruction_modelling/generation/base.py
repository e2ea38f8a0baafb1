"""What every engine is asked and gives back, and what an engine is."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A prompt to complete: `key` names it among the caller's, `ids` are its tokens, and `seed` with `key`
    decides what is drawn for it."""

    key: str
    ids: list[int]
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: temperature 0 takes the most likely token; above it, one is drawn from the
    smallest set of tokens whose probability reaches `top_p`. A `stop` string ends a completion and is not
    part of it. `samples` is the number of completions per request."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    samples: int = 1


@dataclass(frozen=True)
class Completion:
    """One completion of the request `key`: its text without stop string or end token, how many tokens were
    generated (the end token counted), and whether it `stopped` by itself (else its tokens ran out)."""

    key: str
    sample: int
    text: str
    tokens: int
    stopped: bool


@dataclass
class EngineOptions:
    """Generation."""

    model_name_or_path: str | None = None
    """Folder or hub name of the model."""
    tokenizer_name_or_path: str | None = None
    """Folder or hub name of the tokenizer (default: the model's)."""
    use_vllm: bool = False
    """Generate with vLLM, in its own environment (bash scripts/setup_vllm.sh), instead of transformers."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template if it has one, else tulu), tulu, tokenizer, or a Jinja file."""
    chat_formatting_function: str | None = None
    """Function that makes the prompt instead, by its dotted name:
    eval.templates.create_prompt_with_tulu_chat_format."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights (auto: bfloat16 on a GPU that has it, else float32)."""
    eval_batch_size: int = 32
    """Prompts answered at once by transformers; halved where memory runs out."""
    max_model_len: int | None = None
    """Most tokens of prompt and completion (default: the model's positions)."""

    def engine_problems(self) -> list[str]:
        """Return every problem of these options, in words."""
        problems = [
            f"--{name} {getattr(self, name)} must be 1 or more"
            for name in ("eval_batch_size", "max_model_len")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.chat_formatting_function is not None and "." not in self.chat_formatting_function:
            problems.append(
                f"--chat_formatting_function {self.chat_formatting_function} must be a dotted name, such as "
                "eval.templates.create_prompt_with_tulu_chat_format"
            )
        return problems


class Engine(ABC):
    """A model that completes prompts; it is loaded when the first request comes.

    Args:
        options: which model, and how prompts are made.
        tokenizer: its tokenizer.
        model_ends: `eos_token_id` of the model's generation config.
        position_limit: the most tokens of prompt and completion; None for no limit.
    """

    name: str
    position_limit: int | None = None
    # Whoever shows a progress line on the terminal ends that line first, else a warning is written into it.
    warn: Callable[[str], None] = staticmethod(logger.warning)

    def __init__(
        self,
        options: EngineOptions,
        tokenizer: "PreTrainedTokenizerBase",
        model_ends: int | Sequence[int] | None,
        position_limit: int | None,
    ):
        # Scripts take their options from this module, and their --help needs no numpy.
        from instruction_modelling.generation.prompts import PromptMaker
        from instruction_modelling.models.stop_tokens import stop_ids

        self.options, self.tokenizer, self.position_limit = options, tokenizer, position_limit
        self.prompts = PromptMaker(tokenizer, options.chat_format, options.chat_formatting_function)
        self.chat_format = self.prompts.name
        self._model_ends = model_ends
        self.end_ids = sorted(stop_ids(tokenizer, self.prompts.end_strings, model_ends))

    def speak_as_user(self) -> None:
        """Write users' turns from now on, up to what ends them.

        Raises:
            UserError: the chat format has nothing that ends a user's turn.
        """
        from instruction_modelling.models.stop_tokens import stop_ids

        self.prompts.speak_as_user()
        self.end_ids = sorted(stop_ids(self.tokenizer, self.prompts.end_strings, self._model_ends))

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the token ids of a chat with the opening of the next answer, as in training.

        Raises:
            UserError: the chat format cannot render these messages.
        """
        return self.prompts.chat_ids(messages)

    def plain_ids(self, text: str) -> list[int]:
        """Return the token ids of a text as it is, behind what the tokenizer puts in front of every text."""
        return self.prompts.plain_ids(text)

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield the completions of all requests, each as it is finished, in any order.

        A completion gets no more tokens than the model has positions behind its prompt; a prompt that leaves
        none is refused.

        Raises:
            UserError: two requests have one key, a prompt does not fit into the model or, alone, into memory,
                or the model cannot be loaded.
        """
        if len({request.key for request in requests}) < len(requests):
            raise UserError("two requests to the engine have one key")
        for request in requests:
            if not request.ids:
                raise UserError(
                    f"the prompt {request.key} is empty, and the tokenizer puts nothing in front of it"
                )
            if self.position_limit is not None and len(request.ids) >= self.position_limit:
                raise UserError(
                    f"the prompt {request.key} has {len(request.ids)} tokens, which leaves no room in the "
                    f"model's {self.position_limit} (--max_model_len)"
                )
        if requests:
            yield from self._complete(requests, sampling)

    @abstractmethod
    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the model."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first of the stop strings in it, and whether there was one."""
    offset = min((found for found in map(text.find, stop) if found >= 0), default=None)
    return text[:offset], offset is not None
