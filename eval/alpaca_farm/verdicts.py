"""The verdicts in a judge's reply to AlpacaEval's questions, in the shapes in which judges write them.

Where a reply is what the prompt asks for, the package's parsers read the same from it."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eval.chat_client import ChatReply
from eval.thinking import without_thinking
from eval.verdict_text import MORE_ROOM, Unread, ran_out
from instruction_modelling.rows.json_lines import snippet

# The letters that name the first and the second answer of AlpacaEval 2, and what tokenizers put before them.
LETTERS = ("m", "M")
_BEFORE_A_WORD = " \t\r\n▁Ġ"
_ENTRY = re.compile(r"\{[^{}]*\}")
_MODELS = ("model_1", "model_2")


def ranking_verdicts(text: str) -> list[float]:
    """Return every ranking of both models in a text, in its order: 1.0 where the first model is better, 2.0
    where the second is, 1.5 where their ranks are equal.

    A ranking is an entry for each model, `{'model': 'model_1', 'rank': 1}` as Python or JSON has it, wherever
    they stand: in a list, within a fence, a line each."""
    verdicts: list[float] = []
    ranks: dict[str, float] = {}
    for match in _ENTRY.finditer(text):
        entry = _value(match[0])
        if not isinstance(entry, dict) or entry.get("model") not in _MODELS:
            continue
        rank = _number(entry.get("rank"))
        if rank is None:
            continue
        # The same model again begins another ranking.
        if entry["model"] in ranks:
            ranks = {}
        ranks[entry["model"]] = rank
        if len(ranks) == len(_MODELS):
            first, second = (ranks[name] for name in _MODELS)
            verdicts.append(1.5 if first == second else 1.0 if first < second else 2.0)
            ranks = {}
    return verdicts


def _value(text: str) -> Any:
    for read in (ast.literal_eval, json.loads):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _number(value: Any) -> float | None:
    """Return a finite number, also where it is spelt as a text; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def letter_choices(reply: ChatReply) -> tuple[list[dict[str, Any]], list[str]] | Unread:
    """Return the likeliest tokens where the judge names the better answer, each `token` and `logprob`, and
    the letters that its reply names, in order; or why there are none.

    That place is the last token that is a letter, after any thoughts; without one, the first token. A letter
    may have a space before it, or a tokenizer's mark of one: where those forms are likelier than the bare
    letters, they are given as the bare ones. Impossible tokens (log-probability null or -Infinity) are left
    out."""
    content = (reply.logprobs or {}).get("content")
    steps = [step for step in content if isinstance(step, Mapping)] if isinstance(content, list) else []
    text = "".join(_text(step) for step in steps)
    answer = without_thinking(text)
    if not steps and reply.text.strip():
        return Unread(
            f"the reply {snippet(reply.text)} comes without log-probabilities",
            "choose a server that gives them, or AlpacaEval 1 (IS_ALPACA_EVAL_2=False)",
        )
    if not steps or (not answer.strip() and answer != text):
        if reply.finish_reason == "length":
            return ran_out(thinking=bool(steps))
        reason = "the reply ends while the judge is thinking" if steps else "the reply is empty"
        return Unread(reason, MORE_ROOM, again=True)
    # The thought stands before the answer, which is then the text's end.
    begin = len(text) - len(answer) if text.endswith(answer) else 0
    places = _letters_at(steps, text, begin)
    place = places[-1] if places else _first_after(steps, begin)
    letters = [_bare(_text(steps[number])) for number in places]
    return _choices(steps[place].get("top_logprobs")), letters


def _text(step: Mapping[str, Any]) -> str:
    token = step.get("token")
    return token if isinstance(token, str) else ""


def _bare(token: str) -> str:
    return token.strip(_BEFORE_A_WORD)


def _letters_at(steps: Sequence[Mapping[str, Any]], text: str, begin: int) -> list[int]:
    """Return the numbers of the tokens behind position `begin` of the text that are a letter on its own."""
    found, position = [], 0
    for number, step in enumerate(steps):
        token = _text(step)
        end = position + len(token)
        start = end - len(token.lstrip(_BEFORE_A_WORD))
        alone = not text[end : end + 1].isalnum() and not (
            start == position and text[position - 1 : position].isalnum() and position > 0
        )
        if position >= begin and _bare(token) in LETTERS and alone:
            found.append(number)
        position = end
    return found


def _first_after(steps: Sequence[Mapping[str, Any]], begin: int) -> int:
    """Return the number of the first token from position `begin` on that is no white space; the first of all
    where there is none."""
    position = 0
    for number, step in enumerate(steps):
        if position >= begin and _text(step).strip():
            return number
        position += len(_text(step))
    return 0


def _choices(top: Any) -> list[dict[str, Any]]:
    exact: dict[str, float] = {}
    spaced: dict[str, float] = {}
    others: list[dict[str, Any]] = []
    for one in top if isinstance(top, list) else []:
        token, logprob = (
            (one.get("token"), _number(one.get("logprob"))) if isinstance(one, Mapping) else ("", 0)
        )
        if not isinstance(token, str) or logprob is None:
            continue
        letter = _bare(token)
        if letter not in LETTERS:
            others.append({"token": token, "logprob": logprob})
            continue
        share = exact if token == letter else spaced
        share[letter] = share.get(letter, 0.0) + math.exp(min(logprob, 0.0))
    counted = spaced if sum(spaced.values()) > sum(exact.values()) else exact
    if counted is spaced:
        for letter, share_of_letter in exact.items():
            counted[letter] = counted.get(letter, 0.0) + share_of_letter
    letters = [
        {"token": letter, "logprob": math.log(value)} for letter, value in counted.items() if value > 0
    ]
    return letters + others
