"""A conversation with a model on a terminal: its answers as they come, and what was said before them."""

import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.generation.base import Completion, EngineOptions, Request, Sampling
from instruction_modelling.generation.engine import open_engine
from instruction_modelling.generation.transformers_engine import TransformersEngine

# What a terminal would obey in place of showing it: C0 and C1 but newline and tab, and the marks that turn
# the direction of writing.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COMMANDS = """/reset begins anew, /undo takes the last exchange back, /save FILE keeps the conversation as a
row to train on, /exit ends (so do Ctrl-D and, at the prompt, Ctrl-C). Ctrl-C stops an answer."""

logger = logging.getLogger(__name__)


@dataclass
class TalkOptions:
    """Options."""

    model: str = field(metadata={"positional": "RUN", "input": "model"})
    """A run's folder, or the folder or hub name of any chat model."""
    prompt: str | None = None
    """Answer this once and end; - reads it from the standard input. Only the answer goes to the standard
    output."""
    system: str | None = None
    """System message that the conversation begins with."""
    max_new_tokens: int = 512
    """Tokens an answer may have, its end token counted."""
    temperature: float = 0.0
    """0 takes the most likely token; above 0, tokens are drawn."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens whose probability reaches this."""
    seed: int = 0
    """Decides what is drawn."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template, which a run saves, else tulu), tulu, tokenizer, or a Jinja file."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights (auto: bfloat16 on a GPU that has it, else float32)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = []
        if self.max_new_tokens < 1:
            problems.append(f"--max_new_tokens {self.max_new_tokens} must be 1 or more")
        if self.temperature < 0:
            problems.append(f"--temperature {self.temperature:g} must be 0 or more")
        if not 0 < self.top_p <= 1:
            problems.append(f"--top_p {self.top_p:g} must be above 0 and at most 1")
        return problems


def shown(text: str) -> str:
    """Return a model's text as a terminal can only show it: control characters as escapes."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class Talk:
    """A conversation with a model, which is loaded with the first question.

    Args:
        show: takes each piece of an answer as it comes.

    Raises:
        UserError: there is no such model or tokenizer.
    """

    def __init__(self, options: TalkOptions, show: Callable[[str], None]):
        engine = open_engine(
            EngineOptions(
                model_name_or_path=options.model, chat_format=options.chat_format, dtype=options.dtype
            )
        )
        assert isinstance(engine, TransformersEngine)
        self.options, self.engine, self._show = options, engine, show
        self._asked = 0
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        system = self.options.system
        self.messages = [{"role": "system", "content": system}] if system is not None else []

    def undo(self) -> bool:
        """Take the last question and its answer back; return whether there was one."""
        asked = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        if asked:
            del self.messages[asked[-1] :]
        return bool(asked)

    def ask(self, text: str) -> Completion:
        """Return the answer to a question, shown as it comes; both belong to the conversation then.

        Where the conversation with room for the answer is longer than the model's positions, its first
        exchanges are left out, which the log says.

        Raises:
            UserError: the question alone is too long, or the chat format cannot write the conversation.
            KeyboardInterrupt: the answer was stopped; what had come of it belongs to the conversation.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        messages, ids = self._that_fit(messages)
        sampling = Sampling(self.options.max_new_tokens, self.options.temperature, self.options.top_p)
        self._asked += 1
        parts: list[str] = []

        def piece(part: str) -> None:
            parts.append(part)
            self._show(part)

        request = Request(str(self._asked), ids, self.options.seed)
        try:
            answer = self.engine.stream(request, sampling, piece)
        except KeyboardInterrupt:
            self.messages = [*messages, {"role": "assistant", "content": "".join(parts)}]
            raise
        self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        return answer

    def _that_fit(self, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        """Return the messages without the first exchanges where they do not fit, and their token ids."""
        head, rest, left_out = messages[: messages[0]["role"] == "system"], list(messages), 0
        rest = rest[len(head) :]
        while True:
            ids = self.engine.chat_ids([*head, *rest])
            limit = self.engine.position_limit
            # An answer gets at least a quarter of the positions, unless it may not be so long.
            if limit is None or len(ids) + min(self.options.max_new_tokens, limit // 4) <= limit:
                break
            later = next((n for n, one in enumerate(rest) if n and one["role"] == "user"), None)
            if later is None:
                raise UserError(
                    f"this question has {len(ids)} tokens, and the model {limit} positions for question and "
                    "answer: ask a shorter one"
                )
            left_out, rest = left_out + later, rest[later:]
        if left_out:
            logger.info(
                "(the first %d messages no longer fit into the model's %s positions)", left_out, limit
            )
        return [*head, *rest], ids

    def save(self, path: Path) -> None:
        """Add the conversation to a JSON Lines file, as a row that training reads.

        Raises:
            UserError: nothing was said yet, or the file cannot be written.
        """
        if not any(message["role"] == "assistant" for message in self.messages):
            raise UserError("nothing was answered yet: there is nothing to save")
        try:
            # By line feeds alone: within a text other ends of lines may stand as they are.
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            before = [line for line in text.split("\n") if line.strip()]
            write_json_lines(path, [*map(json.loads, before), {"messages": self.messages}])
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: the conversation cannot be added to it: {error}") from error


def talk(conversation: Talk, read: Callable[[], str]) -> None:
    """Ask what `read` gives, until it ends or gives /exit; commands begin with a slash.

    Args:
        read: returns a line of the user; raises EOFError or KeyboardInterrupt where there is no more.
    """
    while True:
        try:
            line = read().strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line in ("/exit", "/quit"):
            return
        try:
            if line.startswith("/"):
                print(_obey(conversation, line))
            elif line:
                answer = conversation.ask(line)
                print("" if answer.stopped else f"\n(its {answer.tokens} tokens ran out: --max_new_tokens)")
        except KeyboardInterrupt:
            print("\n(stopped)")
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def _obey(conversation: Talk, line: str) -> str:
    """Carry a command out and return what to say of it."""
    command, _, rest = line.partition(" ")
    if command == "/reset":
        conversation.reset()
        return "(anew)"
    if command == "/undo":
        return "(taken back)" if conversation.undo() else "(there is nothing to take back)"
    if command == "/save" and rest.strip():
        path = Path(rest.strip()).expanduser()
        conversation.save(path)
        return f"(added to {path}, as a row)"
    return COMMANDS


def read_prompt(given: str, stdin: Sequence[str] | None = None) -> str:
    """Return the question of --prompt; `-` is the standard input's text.

    Raises:
        UserError: it is empty.
    """
    text = "".join(sys.stdin if stdin is None else stdin) if given == "-" else given
    if not text.strip():
        raise UserError("--prompt: the question is empty")
    return text.strip() if given == "-" else text
