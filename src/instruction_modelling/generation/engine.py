"""One way to generate for every evaluation: prompts become token ids in one place, and transformers or vLLM
completes them.

A request is a prompt's ids; a completion is the text up to the first stop string or end token. Prompt ids,
stop strings and end tokens are the same for both engines. Draws above temperature 0 are keyed by (request,
sample), so neither the batch size nor a restart changes them (within one engine)."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Request:
    """A prompt to complete: `key` names it among the caller's, `ids` are its tokens, `seed` keys its own
    draws."""

    key: str
    ids: list[int]
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: temperature 0 takes the most likely token; `stop` strings end a completion
    and are not part of it; `samples` completions a request."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    samples: int = 1


@dataclass(frozen=True)
class Completion:
    """One completion of the request `key`: its text without stop string or end token, how many tokens were
    generated, and whether it `stopped` by itself (else it ran out of room)."""

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
    eval_batch_size: int = 16
    """Prompts answered at once by transformers; halved where memory runs out."""
    max_model_len: int | None = None
    """Most tokens of prompt and completion (default: the model's positions)."""

    def engine_problems(self) -> list[str]:
        """Every problem of these options, in words."""
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
    """A model that completes prompts.

    Args:
        options: which model, and how prompts are made.
        tokenizer: its tokenizer.
        end_ids: the tokens that end a completion.
        room: the most tokens of prompt and completion; None for no limit.
    """

    name: str

    def __init__(
        self,
        options: EngineOptions,
        tokenizer: "PreTrainedTokenizerBase",
        end_ids: Sequence[int],
        room: int | None,
    ):
        from instruction_modelling.generation.prompts import PromptMaker

        self.options, self.tokenizer, self.end_ids, self.room = options, tokenizer, list(end_ids), room
        self._prompts = PromptMaker(tokenizer, options.chat_format, options.chat_formatting_function)
        self.chat_format, self.end_strings = self._prompts.name, self._prompts.end_strings

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a chat with the opening of the next answer, as the model saw them in training.

        Raises:
            UserError: the chat format cannot render these messages.
        """
        return self._prompts.chat_ids(messages)

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of a text as it is, behind what the tokenizer puts in front of every text."""
        return self._prompts.plain_ids(text)

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Completions of all requests, each as it is finished, in any order.

        A completion is cut to the room that the model has behind its prompt; a prompt that leaves none is
        refused.

        Raises:
            UserError: two requests have one key, or a prompt does not fit into the model or, alone, into
            memory.
        """
        keys = {request.key for request in requests}
        if len(keys) < len(requests):
            raise UserError("two requests to the engine have one key")
        for request in requests:
            if not request.ids:
                raise UserError(
                    f"the prompt {request.key} is empty, and the tokenizer puts nothing in front of it"
                )
            if self.room is not None and len(request.ids) >= self.room:
                raise UserError(
                    f"the prompt {request.key} has {len(request.ids)} tokens, which leaves no room in the "
                    "model's "
                    f"{self.room} (--max_model_len)"
                )
        yield from self._complete(requests, sampling)

    @abstractmethod
    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]: ...

    @abstractmethod
    def close(self) -> None:
        """Lets go of the model."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_engine(options: EngineOptions) -> Engine:
    """The engine that the options ask for, its model loaded.

    Raises:
        UserError: the model cannot be loaded, or vLLM's environment is not there.
    """
    from instruction_modelling.generation.responder import end_token_ids, model_limits
    from instruction_modelling.models.loading import load_tokenizer

    name = options.model_name_or_path
    if not name:
        raise UserError("--model_name_or_path is not given")
    ends, positions = model_limits(name)
    tokenizer = load_tokenizer(options.tokenizer_name_or_path or name)
    room = min((limit for limit in (positions, options.max_model_len) if limit is not None), default=None)
    if options.use_vllm:
        from instruction_modelling.generation.vllm_engine import VllmEngine as Chosen
    else:
        from instruction_modelling.generation.transformers_engine import TransformersEngine as Chosen  # type: ignore[assignment]
    engine = Chosen(options, tokenizer, [], room)
    engine.end_ids = end_token_ids(tokenizer, engine.end_strings, ends)
    return engine


# -- completions on the disk ------------------------------------------------------------------------------


class AnswerFile:
    """Completions as they come, a line each; what is there when a run starts again is not generated again.

    Args:
        path: the file; the first line says what it belongs to.
        fingerprint: of model, prompts and sampling: see `fingerprint_of`.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        """Raises:
        UserError: the file belongs to something else, or cannot be read or written.
        """
        self.path = path
        self.completions: list[Completion] = []
        from instruction_modelling.runs.folder import write_aside

        head = json.dumps({"belongs_to": fingerprint}, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            # A line that was cut by the end of a run has no end.
            lines = text[: text.rfind("\n") + 1].splitlines()
            if lines and lines[0] != head:
                raise UserError(
                    f"{path}: holds completions of another model, other prompts or other sampling "
                    f"({self._difference(lines[0], fingerprint)}). Remove the file, or name another folder"
                )
            self.completions = [Completion(**json.loads(line)) for line in lines[1:]]
            self._there = {(one.key, one.sample) for one in self.completions}
            # Whole at any moment: a run that is killed here must not lose what an earlier one made.
            write_aside(path, "".join(line + "\n" for line in ([head, *lines[1:]])))
            self._handle = path.open("a", encoding="utf-8")
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: cannot be read or written: {error}") from error

    @staticmethod
    def _difference(line: str, fingerprint: dict[str, Any]) -> str:
        try:
            before = json.loads(line)["belongs_to"]
        except (ValueError, KeyError, TypeError):
            return "its first line is not one of this program's"
        return ", ".join(
            sorted(name for name in {*before, *fingerprint} if before.get(name) != fingerprint.get(name))
        )

    def missing(self, requests: Sequence[Request], sampling: Sampling) -> list[Request]:
        """The requests some of whose samples are not there yet."""
        return [
            request
            for request in requests
            if not all((request.key, sample) in self._there for sample in range(sampling.samples))
        ]

    def add(self, completion: Completion) -> None:
        """Keeps a completion; one that is there already is left as it was.

        Raises:
            UserError: it cannot be written.
        """
        if (completion.key, completion.sample) in self._there:
            return
        try:
            self._handle.write(json.dumps(asdict(completion)) + "\n")
            self._handle.flush()
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written: {error.strerror or error}; what was there before is kept, "
                "so make "
                "room and run the same command again"
            ) from error
        self._there.add((completion.key, completion.sample))
        self.completions.append(completion)

    def close(self) -> None:
        """Lets go of the file."""
        self._handle.close()


def fingerprint_of(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> dict[str, Any]:
    """What completions depend on, for an `AnswerFile`."""
    import hashlib

    from instruction_modelling.generation.responder import model_state

    name = str(engine.options.model_name_or_path)
    digest = hashlib.sha256(json.dumps([[r.key, r.ids, r.seed] for r in requests]).encode()).hexdigest()
    return {
        "model": name,
        "model_state": model_state(name),
        "engine": engine.name,
        "dtype": engine.options.dtype,
        "sampling": json.loads(json.dumps(asdict(sampling))),
        "end_ids": engine.end_ids,
        "prompts": digest,
    }


def complete_all(
    engine: Engine, requests: Sequence[Request], sampling: Sampling, path: Path, noun: str = "completions"
) -> list[Completion]:
    """All completions of the requests, in their order, kept in the file at `path` as they come.

    Raises:
        UserError: as `Engine.complete` and `AnswerFile`.
    """
    from instruction_modelling.progress import Progress

    answers = AnswerFile(path, fingerprint_of(engine, requests, sampling))
    try:
        missing = answers.missing(requests, sampling)
        progress = Progress(len(requests) * sampling.samples, noun, done=len(answers.completions))
        for completion in engine.complete(missing, sampling) if missing else ():
            before = len(answers.completions)
            answers.add(completion)
            progress.add(len(answers.completions) - before)
    finally:
        answers.close()
    place = {request.key: number for number, request in enumerate(requests)}
    return sorted(answers.completions, key=lambda one: (place[one.key], one.sample))
