"""Loss weights by pattern: regular expressions, searched in what the assistant says (--loss_patterns).

A pattern is searched in the content and in the reasoning of each assistant's message, as they stand in the
file, one after another and never across the two. What it matches weighs as the file of patterns says."""

import importlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import regex

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.json_lines import decode_json, snippet
from instruction_modelling.rows.loss_spans import Stretch

# Seconds that a pattern may take in one text: one that goes back and forth over it (`(a|aa)+$`) takes for
# ever.
SECONDS = 10.0


@dataclass(frozen=True)
class LossPattern:
    """A regular expression, and what the characters weigh that it matches."""

    regex: str
    weight: float


def read_loss_patterns(path: str | None) -> tuple[LossPattern, ...]:
    """Return the patterns of a file, a JSON object {regular expression: weight}; none without a file.

    Raises:
        UserError: it cannot be read, is no such object, a pattern is no regular expression or matches nothing
            but the empty text, or a weight is no finite number of 0 or more.
    """
    if path is None:
        return ()
    where = f"--loss_patterns {path}"
    try:
        value = decode_json(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: is not JSON ({error.msg} at line {error.lineno}, column {error.colno}); write "
            '{"regular expression": weight, ...}, a backslash as two'
        ) from error
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply") from error
    if isinstance(value, RowRefused):
        raise UserError(f"{where}: {value.detail}")
    if not isinstance(value, dict) or not value:
        raise UserError(f'{where}: is {snippet(value)}; write {{"regular expression": weight, ...}}')
    return tuple(_pattern(text, weight, where) for text, weight in value.items())


def _pattern(text: str, weight: Any, where: str) -> LossPattern:
    named = f"{where}: the pattern {text!r}"
    try:
        regex.compile(text)
    except (regex.error, OverflowError, RecursionError) as error:
        raise UserError(f"{named} is no regular expression ({error})") from error
    if _longest_match(text) == 0:
        raise UserError(f"{named} matches nothing but the empty text, which has no character to weigh")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    try:
        number = float(weight) if is_number else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise UserError(f"{named} has the weight {snippet(weight)}; it must be a finite number >= 0")
    return LossPattern(text, abs(number))


def _longest_match(text: str) -> int | None:
    """Return how long a match can be, None where that is not known (it is written as `re` cannot read it)."""
    try:
        parsed = importlib.import_module("re._parser").parse(text)
        return int(parsed.getwidth()[1])
    except Exception:
        return None


@dataclass
class PatternMatches:
    """What a pattern matched in a file's rows."""

    regex: str
    weight: float
    matches: int = 0
    rows: int = 0
    characters: int = 0
    not_to_the_letter: int = 0
    """Matches in messages whose text the chat format writes otherwise than the file has it, where a match may
    weigh nothing."""


def pattern_facts(found: Iterable[PatternMatches]) -> dict[str, dict[str, Any]]:
    """Return what each pattern weighs and matched, by its regular expression."""
    facts = {one.regex: asdict(one) for one in found}
    return {
        name: {key: fact for key, fact in of_one.items() if key != "regex"} for name, of_one in facts.items()
    }


class PatternSearch:
    """Finds patterns in conversations, and counts what it finds."""

    def __init__(self, patterns: Iterable[LossPattern]):
        self._compiled = [(regex.compile(p.regex), PatternMatches(p.regex, p.weight)) for p in patterns]

    @property
    def found(self) -> list[PatternMatches]:
        """Return what was found so far, a pattern each."""
        return [matches for _, matches in self._compiled]

    def stretches(self, row: Conversation, changed: Iterable[int]) -> dict[int, list[Stretch]]:
        """Return, for each message with a match, its matches in its own text (`Message.text`).

        Args:
            changed: the messages whose text the chat format does not write to the letter.

        Raises:
            UserError: a search takes more than `SECONDS`.
        """
        out: dict[int, list[Stretch]] = {}
        for compiled, counts in self._compiled:
            before = counts.matches
            for index, start, text in _assistant_texts(row):
                try:
                    spans = [match.span() for match in compiled.finditer(text, timeout=SECONDS)]
                except TimeoutError as error:
                    raise UserError(
                        f"--loss_patterns: the pattern {counts.regex!r} takes more than {SECONDS:g} seconds "
                        f"in message {index} of row {row.row} (id {row.id}); write it so that it does not go "
                        "back over the text again and again (a repetition within a repetition, mostly)"
                    ) from error
                spans = [span for span in spans if span[1] > span[0]]
                counts.matches += len(spans)
                counts.characters += sum(end - begin for begin, end in spans)
                counts.not_to_the_letter += len(spans) if index in changed else 0
                out.setdefault(index, []).extend(
                    (start + begin, start + end, counts.weight) for begin, end in spans
                )
            counts.rows += counts.matches > before
        return {index: stretches for index, stretches in out.items() if stretches}


def _assistant_texts(row: Conversation) -> Iterator[tuple[int, int, str]]:
    """Yield what the assistant says: the message, where the text begins in `Message.text`, and the text."""
    for index, message in enumerate(row.messages):
        if message.role == "assistant":
            yield index, 0, message.content
            if message.reasoning_content:
                yield index, len(message.content), message.reasoning_content
