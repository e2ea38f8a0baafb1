"""Chats as people have them today: several turns, system prompts, reasoning, tools, odd orders of roles."""

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
