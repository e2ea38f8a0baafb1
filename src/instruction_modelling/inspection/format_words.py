"""What a chat format does, in plain words."""

import json
import re
from collections.abc import Iterator
from typing import Any

from instruction_modelling.inspection.token_texts import visible

_OUTCOMES = {
    "dropped": "The template leaves out a part of a chat with",
    "refused": "The template refuses a chat with",
    "unclear": "Nothing tells which text is whose in a chat with",
}
_ARGUMENTS = {
    "object": "as an object; JSON strings in a file are read as the object they spell",
    "string": "as a JSON string; objects in a file are given as one",
    "either": "as an object or as a JSON string",
    "none": "not at all: no call is written",
}


def first_sentence(described: dict[str, Any]) -> str:
    """Return in one sentence how an answer ends and how many sequences a row is."""
    outcomes = described["outcomes"]
    if "trained" not in outcomes.values():
        reason = next(iter(described["reasons"].values()), "")
        return f"No chat can be trained with this chat format: {reason.rstrip('.')}."
    return f"{_end_clause(described)}; {_history_clause(described)}."


def _end_clause(described: dict[str, Any]) -> str:
    ends = described["ends"]
    kind = "an answer" if "an answer" in ends else next(iter(ends), "")
    end = ends.get(kind, {"text": "", "is_next_role": False})
    stops = {stop["token"] for stop in described["stop_tokens"]}
    subject = (kind or "an answer").capitalize()
    if not end["text"]:
        return (
            f"{subject} ends by nothing that this format writes; give it an end with --end_of_turn and one "
            "of the tokenizer's added tokens"
        )
    shown = _quoted(end["text"])
    if end["is_next_role"]:
        return f"{subject} has no end of its own: the model stops by writing {shown}, the next role's token"
    at_end = any(end["text"].rstrip().endswith(stop) for stop in stops)
    return f"{subject} ends with {shown}, " + (
        "at which generation stops" if at_end else "at which generation does not stop"
    )


def _history_clause(described: dict[str, Any]) -> str:
    if described["history"] == "kept":
        return "earlier turns stay as the model wrote them, so every row is one sequence"
    if described["history"] == "whole":
        return (
            "every row is one sequence, the text of the whole chat, and a row of which that lacks something "
            "is refused (--history whole)"
        )
    if described["history"] == "without_reasoning":
        return (
            "the reasoning of earlier turns is dropped once the chat goes on, so a row with reasoning in "
            "several turns becomes several sequences"
        )
    counts = described["sequences"]
    several = [name for name, count in counts.items() if count > 1]
    # What holds for any chat of several turns says it all.
    shown = "several turns" if "several turns" in several else " or ".join(several[:3])
    return (
        "earlier turns are written otherwise once the chat goes on, so a row becomes several sequences "
        f"where it has {shown}"
    )


def format_lines(described: dict[str, Any]) -> Iterator[str]:
    """Yield the description of a format, a line each, the answer in one sentence first."""
    yield first_sentence(described)
    yield ""
    yield f"chat format: {described['name']}, {described['source']}"
    if described["templates"]:
        yield f"named templates: {', '.join(described['templates'])}; rows with tools take tool_use"
    yield f"behind a user's text, an answer is asked for by: {_quoted(described['prompt'])}"
    user_end = described["user_end"]
    yield f"a user's turn ends with {_quoted(user_end) if user_end else 'nothing'}"
    yield from _end_lines(described)
    yield from (
        f"before its content the model writes {_quoted(text)} in: {names}"
        for text, names in _grouped(described["openings"])
        if text
    )
    yield ""
    trained = [name for name, outcome in described["outcomes"].items() if outcome == "trained"]
    counts = described["sequences"]
    shown = [f"{name} ({counts[name]} sequences)" if counts[name] > 1 else name for name in trained]
    yield f"trained: {', '.join(shown) or 'nothing'}"
    for outcome, words in _OUTCOMES.items():
        reasons = {
            name: re.sub(r"^message \d+: ", "", described["reasons"][name])
            for name, found in described["outcomes"].items()
            if found == outcome
        }
        for reason, names in _grouped(reasons):
            yield f"{words} {names}: {visible(reason)}"
    yield ""
    yield f"arguments of calls: {_ARGUMENTS[described['arguments']]}"
    keys = ", ".join(described["reasoning_keys"])
    yield f"reasoning: {f'read under {keys}' if keys else 'under no key'}"
    yield from _variable_lines(described)
    yield f"date: {'writes the day of the run' if described['reads_date'] else 'writes none'}"
    bos = described["bos"]
    yield f"BOS: {bos['token'] or 'none'}, written by {bos['written_by']}; EOS: {described['eos'] or 'none'}"
    yield f"control tokens: {' '.join(described['control_tokens']) or 'none'}"


def _end_lines(described: dict[str, Any]) -> Iterator[str]:
    for text, names in _grouped({name: end["text"] for name, end in described["ends"].items()}):
        yield f"ends with {_quoted(text) if text else 'nothing'}: {names}"
    for stop in described["stop_tokens"]:
        number = "not in the vocabulary" if stop["id"] is None else f"id {stop['id']}"
        yield f"stop token: {visible(stop['token'])} ({number}): {stop['why']}"
    for end in described["ends_that_stop_nothing"]:
        yield (
            f"no stop token: {visible(end['token'])}: {end['why']}, so a model would stop there too early; "
            "the model's own stop tokens must end such a turn"
        )


def _grouped(texts: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each text once, and the names of all that have it."""
    for text in dict.fromkeys(texts.values()):
        yield text, ", ".join(name for name, found in texts.items() if found == text)


def _variable_lines(described: dict[str, Any]) -> Iterator[str]:
    given = described["given_variables"]
    for variable in described["variables"]:
        name, default = variable["name"], variable["default"]
        parts = [f"default {json.dumps(default)}"] if default is not None else []
        parts += ["true and false write different texts"] if variable["changes_text"] else []
        parts += [f"given: {json.dumps(given[name])}"] if name in given else []
        yield f"variable {name}" + (f": {', '.join(parts)}" if parts else "")
    if not described["variables"]:
        yield "variables: none"


def _quoted(text: str) -> str:
    return f"`{visible(text)}`".replace("⏎\n", "⏎")
