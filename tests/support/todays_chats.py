"""Chats as people have them today: several turns, system prompts, reasoning, tools, odd orders of roles."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Chat = tuple[list[dict[str, Any]], list[dict[str, Any]] | None]

PARAMETERS = {
    "type": "object",
    "properties": {"place": {"type": "string", "description": "where"}},
    "required": ["place"],
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather_now", "description": "Weather of a place.", "parameters": PARAMETERS},
    }
]
THOUGHT = "Only one and seven divide it."
SECOND = "Three times three."


def user(content: str) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, Any]:
    """Return a system message."""
    return {"role": "system", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    """Return an assistant's message."""
    return {"role": "assistant", "content": content, **more}


def call(place: str = "Qarth", number: str = "abcdef123") -> dict[str, Any]:
    """Return a call of the one tool."""
    function = {"name": "weather_now", "arguments": {"place": place}}
    return {"id": number, "type": "function", "function": function}


def tool(content: str, number: str = "abcdef123") -> dict[str, Any]:
    """Return a tool's result."""
    return {"role": "tool", "content": content, "tool_call_id": number, "name": "weather_now"}


PRIME, RIVER, WEATHER = user("Is 7 prime?"), user("Name a river."), user("Weather in Qarth?")
YES, LOIRE, ODER = assistant("Yes it is."), assistant("The Loire."), assistant("The Oder.")
NINE, MORE = user("And 9?"), user("Another?")


def _thought(content: str, thought: str) -> dict[str, Any]:
    return assistant(content, reasoning_content=thought)


def _inline(content: str, thought: str) -> dict[str, Any]:
    return assistant(f"<think>\n{thought}\n</think>\n\n{content}")


CHATS: dict[str, Chat] = {
    "one exchange": ([PRIME, YES], None),
    "two exchanges": ([RIVER, LOIRE, MORE, ODER], None),
    "three exchanges": ([RIVER, LOIRE, MORE, ODER, user("More?"), assistant("Elbe.")], None),
    "system": ([system("Be short."), PRIME, YES], None),
    "system, two exchanges": ([system("Be short."), RIVER, LOIRE, MORE, ODER], None),
    "reasoning": ([PRIME, _thought("Yes it is.", THOUGHT)], None),
    "reasoning in both": ([PRIME, _thought("Yes it is.", THOUGHT), NINE, _thought("No, not.", SECOND)], None),
    "reasoning in the last": ([PRIME, YES, NINE, _thought("No, not.", SECOND)], None),
    "reasoning in the first": ([PRIME, _thought("Yes it is.", THOUGHT), NINE, assistant("No, not.")], None),
    "inline thought": ([PRIME, _inline("Yes it is.", THOUGHT)], None),
    "inline thoughts in both": (
        [PRIME, _inline("Yes it is.", THOUGHT), NINE, _inline("No, not.", SECOND)],
        None,
    ),
    "empty thought": ([PRIME, assistant("<think>\n\n</think>\n\nYes it is.")], None),
    "tool": (
        [WEATHER, assistant("", tool_calls=[call()]), tool("31 C"), assistant("It has 31 degrees.")],
        TOOLS,
    ),
    "tools not called": ([PRIME, YES], TOOLS),
    "words and a call": (
        [
            WEATHER,
            assistant("I shall look.", tool_calls=[call()]),
            tool("31 C"),
            assistant("It has 31 degrees."),
        ],
        TOOLS,
    ),
    "reasoning and a call": (
        [
            WEATHER,
            assistant("", reasoning_content="I must look.", tool_calls=[call()]),
            tool("31 C"),
            _thought("It has 31 degrees.", "Simple now."),
        ],
        TOOLS,
    ),
    "parallel calls": (
        [
            user("Weather in Qarth and Vaes?"),
            assistant("", tool_calls=[call(), call("Vaes", "abcdef124")]),
            tool("31 C"),
            tool("12 C", "abcdef124"),
            assistant("31 and 12."),
        ],
        TOOLS,
    ),
    "words that name the call": (
        [WEATHER, assistant("I ask weather_now for Qarth.", tool_calls=[call()]), tool("31 C"), YES],
        TOOLS,
    ),
    "the same call twice": (
        [
            WEATHER,
            assistant("", tool_calls=[call(), call(number="abcdef124")]),
            tool("31 C"),
            tool("31 C", "abcdef124"),
            assistant("It has 31 degrees."),
        ],
        TOOLS,
    ),
    "inline thought and a call": (
        [
            WEATHER,
            {**_inline("", THOUGHT), "tool_calls": [call()]},
            tool("31 C"),
            _inline("It has 31.", SECOND),
        ],
        TOOLS,
    ),
    "ends with a call": ([WEATHER, assistant("", tool_calls=[call()])], TOOLS),
    "a loop of calls": (
        [
            user("Weather?"),
            assistant("", reasoning_content="First look.", tool_calls=[call()]),
            tool("31 C"),
            assistant("", reasoning_content="Second look.", tool_calls=[call("Vaes", "abcdef124")]),
            tool("12 C", "abcdef124"),
            _thought("31 and 12.", "Both known."),
        ],
        TOOLS,
    ),
    "a tool, then a user": (
        [
            WEATHER,
            assistant("", tool_calls=[call()]),
            tool("31 C"),
            assistant("It has 31 degrees."),
            MORE,
            ODER,
        ],
        TOOLS,
    ),
    "system in the middle": (
        [user("Hi there."), assistant("Hello you."), system("Be short."), RIVER, LOIRE],
        None,
    ),
    "assistant first": ([assistant("Hello you."), RIVER, LOIRE], None),
    "two users": ([user("Hi there."), RIVER, LOIRE], None),
    "user last": ([RIVER, LOIRE, user("Thanks much.")], None),
    "edge whitespace": ([user(" Is 7 prime? \n"), assistant("\n Yes it is. ")], None),
}


@dataclass(frozen=True)
class Row:
    """A row as a file has it, and what it means in OpenAI's form."""

    family: str
    written: dict[str, Any]
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    variables: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[int, float] = field(default_factory=dict)
    """The weights of messages that are not 1."""


FAMILIES = {
    "one exchange": "one turn",
    "edge whitespace": "one turn",
    "system in the middle": "other orders",
    "assistant first": "other orders",
    "two users": "other orders",
    "user last": "other orders",
    "words and a call": "tools",
    "parallel calls": "tools",
    "ends with a call": "tools",
    "words that name the call": "tools",
    "the same call twice": "tools",
    "inline thought and a call": "tools with reasoning",
    "reasoning and a call": "tools with reasoning",
    "a loop of calls": "tools with reasoning",
}


def _family(name: str) -> str:
    by_words = {"exchanges": "several turns", "though": "reasoning", "reason": "reasoning", "tool": "tools"}
    if name in FAMILIES:
        return FAMILIES[name]
    if name.startswith("system"):
        return "system text"
    return next(family for word, family in by_words.items() if word in name)


def _plain(name: str) -> Row:
    messages, tools = deepcopy(CHATS[name])
    return Row(_family(name), {"messages": messages, **({"tools": tools} if tools else {})}, messages, tools)


def _called_with(arguments: Any, meant: dict[str, Any]) -> Row:
    """A row whose one call has these arguments in the file, and what they mean."""

    def messages(given: Any) -> list[dict[str, Any]]:
        of_call = {**call(), "function": {"name": "weather_now", "arguments": given}}
        return [WEATHER, assistant("", tool_calls=[of_call]), tool("31 C"), assistant("It has 31 degrees.")]

    return Row("forms of data", {"messages": messages(arguments), "tools": TOOLS}, messages(meant), TOOLS)


def _parts(text: str) -> list[dict[str, str]]:
    half = len(text) // 2
    return [{"type": "text", "text": text[:half]}, {"type": "text", "text": text[half:]}]


_FOUR = [RIVER, LOIRE, MORE, ODER]
ROWS: dict[str, Row] = {name: _plain(name) for name in CHATS} | {
    "arguments as a string": _called_with('{"place": "Qarth"}', {"place": "Qarth"}),
    "null arguments": _called_with({"place": "Qarth", "unit": None}, {"place": "Qarth"}),
    "nested arguments": _called_with(
        {"place": "Qarth", "days": [2, 3], "more": {"wind": "yes"}},
        {"place": "Qarth", "days": [2, 3], "more": {"wind": "yes"}},
    ),
    "contents in parts": Row(
        "forms of data",
        {"messages": [{**message, "content": _parts(message["content"])} for message in _FOUR]},
        _FOUR,
        None,
    ),
    "weights": Row(
        "forms of data",
        {"messages": [RIVER, {**LOIRE, "weight": 0}, MORE, {**ODER, "weight": 0.5}]},
        _FOUR,
        None,
        weights={1: 0.0, 3: 0.5},
    ),
    "thinking switched off": Row(
        "reasoning",
        {"messages": _FOUR, "chat_template_kwargs": {"enable_thinking": False}},
        _FOUR,
        None,
        variables={"enable_thinking": False},
    ),
    "system, tools and reasoning": Row(
        "tools with reasoning",
        {"messages": [system("Be short."), *CHATS["reasoning and a call"][0]], "tools": TOOLS},
        [system("Be short."), *CHATS["reasoning and a call"][0]],
        TOOLS,
    ),
}
"""Every chat, and rows whose form in a file differs from what they mean."""
