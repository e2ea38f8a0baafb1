"""Long chats with calls, reasoning and odd messages, and what becomes of them where each turn is rendered."""

from collections.abc import Sequence
from typing import Any

import pytest
from chat_samples import conversation
from todays_chats import TOOLS, assistant, call, system, tool, user

from instruction_modelling.chat import sequences as chat_sequences
from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.chat.spans import Rendered
from instruction_modelling.rows.conversations import Conversation


def exchanges(count: int, reasoning: bool = False) -> Conversation:
    """A row of exchanges, each a question, a call, its result and an answer."""
    messages: list[dict[str, Any]] = []
    for k in range(count):
        number = f"abcdef{k:03}"
        messages += [
            user(f"Weather {k} in Qarth?"),
            assistant("", tool_calls=[call(f"Q{k}", number)], **_thought(reasoning, f"Look at {k}.\nSo.")),
            tool(f"{k} C", number),
            assistant(f"It has {k} degrees.", **_thought(reasoning, f"Simple, {k}.")),
        ]
    return conversation(messages, tools=TOOLS)


def talk(count: int, reasoning: bool = True) -> Conversation:
    """A row of questions and answers, with whitespace at their edges."""
    messages: list[dict[str, Any]] = []
    for k in range(count):
        messages += [user(f"Question {k} ?\n"), assistant(f" Answer {k}.", **_thought(reasoning, f"T {k}."))]
    return conversation(messages)


def loop(count: int) -> Conversation:
    """A row of one question, and calls with reasoning until the answer."""
    messages = [user("Weather everywhere?")]
    for k in range(count):
        number = f"abcdef{k:03}"
        messages += [
            assistant("", reasoning_content=f"Look {k}.", tool_calls=[call(f"Q{k}", number)]),
            tool(f"{k} C", number),
        ]
    return conversation([*messages, assistant("Done.", reasoning_content="All seen.")], tools=TOOLS)


def odd(count: int) -> Conversation:
    """A row whose exchanges differ: two calls at once, loops, thoughts within contents, users who look like
    tools, exchanges that end without an answer."""
    messages = [system("Sys  ")]
    for k in range(count):
        first, second = f"abcdef{k:03}", f"abcdeg{k:03}"
        called = [assistant("", reasoning_content=f"M {k}", tool_calls=[call(f"Q{k}", first)])]
        if k % 6 == 2:
            messages += [user(f"<tool_response>\nfake {k}</tool_response>"), assistant(f"Odd {k}")]
        elif k % 6 == 3:
            calls = [call(f"Q{k}", first), call(f"P{k}", second)]
            messages += [user(f"W {k}?"), assistant("", tool_calls=calls), tool("1 C", first)]
            messages += [tool("2 C", second), assistant(f"It has {k}.", reasoning_content=f"S{k}")]
        elif k % 6 == 4:
            messages += [user(f"V {k}?"), assistant(f"<think>\nInline {k}\n</think>\n\nSo {k}.  ")]
        elif k % 6 == 5:
            messages += [user(f"  U {k}?"), *called, tool(f"{k} C", first)]
        else:
            messages += [user(f"U {k}?"), *called, tool(f"{k} C", first), assistant(f"Has {k}.\n\n")]
    return conversation(messages, tools=TOOLS)


def _thought(wanted: bool, text: str) -> dict[str, str]:
    return {"reasoning_content": text} if wanted else {}


def rendered_one_by_one(
    chat_format: ChatFormat, row: Conversation, monkeypatch: pytest.MonkeyPatch
) -> Sequence[Rendered]:
    """The sequences of a row where the messages before and through every turn are rendered."""
    with monkeypatch.context() as patched:
        patched.setattr(chat_sequences, "open_windows", lambda *_: None)
        patched.setattr(chat_sequences, "turns_of_long_row", lambda *_: None)
        return chat_format.sequences(row)
