"""Scores of responses against references: exact match, token F1, lengths, and a user's own metric (BLEU is in
`bleu`).

Exact match and token F1 compare normalised texts, word by word, in the manner of SQuAD, but keep what decides
about numbers and units. `normalise` does, in this order:

1. compose characters (Unicode NFC), make full-width and half-width forms ordinary ones, leave out what no
   reader sees or needs (`rows.scripts.without_invisible`), lower-case, and write every minus sign and dash as
   `-`;
2. drop the commas of thousands (1,000 is 1000) and make the other commas between digits spaces;
3. keep the other punctuation between two digits (3.5 is not 35, 1/2 is not 12, 10:30 is not 1030), and a
   minus or a point before a number (-5 is not 5);
4. make `%` and currency signs words of their own (5% is not 5; $5 is $ 5);
5. drop all other punctuation;
6. set the words of scripts that write without spaces apart (`rows.scripts.set_apart`: each Chinese character
   and kana is a word, Thai words are a dictionary's);
7. drop the words a, an, the; join what is left by single spaces.

So "12" and "12 km" do not match exactly, and share one word of two; 今天 and 今 天 match exactly."""

import json
import math
import re
import shlex
import string
import subprocess
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.generation.responses import Response
from instruction_modelling.rows.json_lines import snippet
from instruction_modelling.rows.scripts import plain_width, set_apart, without_invisible
from instruction_modelling.rows.words import text_words

_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−"), "-")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DIGIT_COMMA = re.compile(r"(?<=\d),(?=\d)")
# Punctuation that belongs to a number: between two digits, or a sign or point that a number begins with.
_OF_NUMBER = re.compile(r"(?<=\d)[^\w\s](?=\d)|(?<![\w)\].])-(?=[$€£¥]?\.?\d)|(?<![\w.])\.(?=\d)")
_ARTICLES = frozenset(("a", "an", "the"))


def normalise(text: str) -> str:
    """Return the text as exact match and token F1 compare it; the module's docstring has the rule."""
    text = plain_width(unicodedata.normalize("NFC", text))
    text = without_invisible(text).lower().translate(_DASHES)
    text = _DIGIT_COMMA.sub(" ", _THOUSANDS.sub("", text))
    kept = {match.start() for match in _OF_NUMBER.finditer(text)}
    out = []
    for index, character in enumerate(text):
        if character == "%" or unicodedata.category(character) == "Sc":
            out.append(f" {character} ")
        elif index in kept or not _is_punctuation(character):
            out.append(character)
    return " ".join(word for word in set_apart("".join(out)).split() if word not in _ARTICLES)


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def exact_match(response: str, reference: str) -> bool:
    """Return whether the two are the same after `normalise`."""
    return normalise(response) == normalise(reference)


def token_f1(response: str, reference: str) -> float:
    """Return 2PR / (P + R) of the normalised words the two share, counted with repetition; 1 where both
    have none."""
    ours, theirs = normalise(response).split(), normalise(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None of no values."""
    return math.fsum(values) / len(values) if values else None


# -- all scores of a file ---------------------------------------------------------------------------------


def row_scores(responses: Sequence[Response]) -> list[dict[str, Any]]:
    """Return per response {"row", "id", "exact_match": 0/1, "token_f1", "finished", "tokens", "words",
    "reference_words"}; what the response does not say, or needs a reference it lacks, is None."""
    rows: list[dict[str, Any]] = []
    for response in responses:
        reference = response.reference
        rows.append(
            {
                "row": response.row,
                "id": response.id,
                "exact_match": None if reference is None else int(exact_match(response.response, reference)),
                "token_f1": None if reference is None else token_f1(response.response, reference),
                "finished": response.finished,
                "tokens": response.tokens,
                "words": text_words(response.response),
                "reference_words": None if reference is None else text_words(reference),
            }
        )
    return rows


ROW_KEYS = ("row", "id", "exact_match", "token_f1", "finished", "tokens", "words", "reference_words")


def summarise_scores(rows: Sequence[dict[str, Any]], metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Return means over the rows that have the score, fractions from 0 to 1; None where no row has it."""

    def average(key: str) -> float | None:
        return mean([float(row[key]) for row in rows if row[key] is not None])

    return {
        "rows": len(rows),
        "rows_with_reference": sum(row["exact_match"] is not None for row in rows),
        "exact_match": average("exact_match"),
        "token_f1": average("token_f1"),
        "finished": average("finished"),
        "mean_tokens": average("tokens"),
        "mean_words": average("words"),
        "reference_mean_words": average("reference_words"),
        "metrics": {name: average(name) for name in metrics},
    }


# -- a user's own metric ----------------------------------------------------------------------------------


def run_metric(command: str, responses: Sequence[Response]) -> list[float]:
    """Return a number per response from a user's command, which is run once.

    It reads a line of JSON per row on standard input, {"id", "prompt", "response", "reference"}, and prints a
    line per row, in order: a number, or an object {"score": number}. Its standard error goes to ours. The
    command is split into words as a shell does (quotes, backslashes), and no shell is run.

    Raises:
        UserError: it cannot be run, fails, prints another count of lines, or a line that is no finite number.
    """
    rows = (
        {"id": r.id, "prompt": r.prompt, "response": r.response, "reference": r.reference} for r in responses
    )
    lines_in = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return _printed_numbers("--metric_command", command, [], lines_in.encode(), len(responses))


def task_scores(command: str, responses: Path, count: int) -> list[float]:
    """Return a number for each of the `count` lines of a responses.jsonl from a user's command, which is run
    once: as `run_metric`, but the file's path follows its words, and its lines are what it reads on standard
    input.

    Raises:
        UserError: as `run_metric`.
    """
    return _printed_numbers("--task_score", command, [str(responses)], responses.read_bytes(), count)


def _printed_numbers(flag: str, command: str, more: list[str], lines_in: bytes, count: int) -> list[float]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{flag} {command}: cannot be split into words: {error}") from None
    if not words:
        raise UserError(f"{flag} is empty; give the command that scores the responses")
    flag = f"{flag} {command}"
    try:
        done = subprocess.run([*words, *more], input=lines_in, stdout=subprocess.PIPE, check=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{flag}: cannot be run: {error}") from error
    if done.returncode:
        how = (
            f"was killed by signal {-done.returncode}"
            if done.returncode < 0
            else f"exited with {done.returncode}"
        )
        raise UserError(f"{flag}: {how}; what it said, if anything, is above")
    printed = done.stdout.decode("utf-8", "replace").removesuffix("\n")
    lines = printed.split("\n") if printed else []
    scores = [_score(line, number, flag) for number, line in enumerate(lines, start=1)]
    if len(scores) != count:
        raise UserError(
            f"{flag}: printed {len(scores)} lines for {count} rows; it must print one number a row, "
            "in order, and nothing else on standard output"
        )
    return scores


def _score(line: str, number: int, flag: str) -> float:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # A bare number as other languages print it (1., .5, nan) need not be JSON.
        value = _float(line)
    if isinstance(value, dict):
        value = value.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(
            f"{flag}: line {number} of its output is {snippet(line)}; it must be a finite number, or "
            '{"score": a finite number}'
        )
    return float(value)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


METRIC_NAME: Callable[[str], re.Match[str] | None] = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*").fullmatch
