"""Conversations for the tests of chats and weights: awkward ones by hand, and random ones."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from instruction_modelling.rows.conversations import Conversation, Message

Chat = list[dict[str, Any]]

# Whitespace of all sorts, characters of several bytes and of several code points, private-use characters,
# words that formats use.
SNIPPETS = (
    "",
    " ",
    "\n",
    "\n\n",
    "\t",
    "  ",
    "\r\n",
    "\u00a0",
    "\u3000",
    "a",
    "hello",
    "Hello world",
    "user",
    "assistant",
    "system",
    "U1",
    "A1",
    "1 + 1 = 2",
    "def f(x):\n    return x\n",
    "naïve café",
    "e\u0301o\u0308",
    "日本語",
    "🎉",
    "👩‍👩‍👧",
    "\u200b",
    "\ufeff",
    "\U000f0000",
    "\U000f0001",
    "\U00100000",
    "\U0010fffd",
    "\U0010fffd\U0010fffd",
    "\ue000",
    "<",
    ">",
    "/",
    "|",
    "s>",
    "</",
    "<|",
    "|>",
    "<|im_",
    "end|>",
    "<|user|>\n",
    "<|assistant|>",
    "<|system|>\n",
    "\x00",
    "\x1f",
    "'\"\\",
    "{{ x }}",
    "{% if %}",
    "&lt;",
)
# What the SentencePiece vocabularies cannot tell from other text, or drop.
_NOT_FOR_SENTENCEPIECE = "\u2581"


def texts(control: Sequence[str] = (), plain: Sequence[str] = SNIPPETS) -> st.SearchStrategy[str]:
    """Contents: snippets in a row, some of them the texts of control tokens, and now and then anything at
    all."""
    snippets = st.sampled_from([*plain, *control, *control])
    free = st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters=_NOT_FOR_SENTENCEPIECE), max_size=8
    )
    return st.lists(snippets | free, max_size=6).map("".join)


def chats(
    contents: st.SearchStrategy[str], roles: Sequence[str] = ("system", "user", "assistant"), longest: int = 5
) -> st.SearchStrategy[Chat]:
    """Messages of any roles in any order."""
    return st.lists(
        st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(roles), contents),
        min_size=1,
        max_size=longest,
    )


def alternating(contents: st.SearchStrategy[str], system: bool, longest: int = 4) -> st.SearchStrategy[Chat]:
    """Messages of a user and an assistant by turns, after a system message or not."""

    def build(first: str | None, rest: list[str]) -> Chat:
        chat = [
            {"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(rest)
        ]
        return chat if first is None else [{"role": "system", "content": first}, *chat]

    opening = st.none() | contents if system else st.none()
    return st.builds(build, opening, st.lists(contents, min_size=1, max_size=longest))


def conversation(
    chat: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = (), row: int = 0
) -> Conversation:
    """A row with these messages."""
    return Conversation(
        row, row + 1, f"row_{row}", "sample", tuple(Message(**message) for message in chat), tuple(tools)
    )


def plain_row(prompt: str, completion: str, row: int = 0) -> Conversation:
    """A prompt/completion row."""
    return Conversation(
        row,
        row + 1,
        f"row_{row}",
        "sample",
        (Message("user", prompt), Message("assistant", completion)),
        plain=True,
    )


def user(content: str, **fields: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content, **fields}


def assistant(content: str, **fields: Any) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": content, **fields}


def system(content: str, **fields: Any) -> dict[str, Any]:
    """A system message."""
    return {"role": "system", "content": content, **fields}


def tool(content: str, **fields: Any) -> dict[str, Any]:
    """A tool's output."""
    return {"role": "tool", "content": content, **fields}


CHATS: list[Chat] = [
    [user("hello"), assistant("there")],
    [user("Add 17 and 25."), assistant("42"), user("And 1?"), assistant("43"), user("Bye"), assistant("Bye")],
    [system("Be brief."), user("hello"), assistant("there"), user("more"), assistant("last")],
    [user("same"), assistant("same"), user("same"), assistant("same")],
    [user("assistant"), assistant("user"), user("system"), assistant("model")],
    [user("  edge \n"), assistant("\n\nedge\t ")],
    [system(" edge "), user("\nedge\n"), assistant(" edge"), user("edge "), assistant("\n edge \n")],
    [user("日本語 🎉 e\u0301"), assistant("👩‍👩‍👧 naïve\u200b")],
    [user("a\n\nb\n \nc"), assistant("d\n\n\ne")],
    [user("hello"), assistant("")],
    [user("hello"), assistant(""), user("more"), assistant("last")],
    [user("hello"), assistant("there"), user(""), assistant("last")],
    [user("hello"), assistant(""), user(""), assistant(""), user("x"), assistant("y")],
    [user("hello"), assistant(" \n ")],
    [user("\U000f0000 private \U000f0001"), assistant("\U00100000\ue000\U0010fffd")],
    [user("hello"), assistant("there"), user("open")],
    [user("U1"), assistant("A1"), user("U2"), assistant("A2")],
    [user("{{ content }} {% endfor %}"), assistant("'quoted' \"text\" \\n")],
    [user("<|user|>"), assistant("<b>bold</b> </s")],
]
