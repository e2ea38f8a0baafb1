"""Rows to inspect, and what one call of src/inspect_weights.py left behind."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

QUESTION = "Which river flows through Paris?"
ANSWER = "The Seine flows through Paris."
RESPONSE_NAMES = ("assistant", "end", "reasoning", "tool_calls")


def chat(*contents: str, **extra: Any) -> dict[str, Any]:
    """A row of user and assistant messages in turn."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)], **extra}


GOOD = chat(QUESTION, ANSWER)


@dataclass
class Inspected:
    """What one call of the script left behind."""

    code: int
    out: str
    error: str
    records: list[dict[str, Any]]
    summary: dict[str, Any]
    page: str

    def warned(self, name: str) -> list[str]:
        """The warnings of that name."""
        return [warning for warning in self.summary["warnings"] if warning.startswith(f"{name}:")]


Inspect = Callable[..., Inspected]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% else %}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def some_rows(shared_data: Path, name: str, count: int) -> list[dict[str, Any]]:
    """The first `count` rows of a training file, and as many with more than two messages, if it has them."""
    with (shared_data / "train" / name).open(encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    return rows[:count] + [row for row in rows[count:] if len(row["messages"]) > 2][:count]


UNEVEN = [
    chat(QUESTION, ANSWER),
    chat("Oslo?", "Name the capital of Norway. Oslo.", "Add 17 and 25.", "The sum is 42."),
    chat("Explain how a bicycle stays upright, and say why it falls when it stands still.", "No."),
]


class Page(HTMLParser):
    """The texts and titles of a page's elements by class, and every tag and attribute."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[set[str], dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("meta", "br"):
            return
        given = dict(attrs)
        self.open.append(len(self.found))
        self.found.append((set((given.get("class") or "").split()), given, []))

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.found[place][2].append(data)

    def texts(self, name: str) -> list[str]:
        """The text of each element of a class."""
        return ["".join(data) for classes, _, data in self.found if name in classes]

    def titles(self, name: str) -> list[str | None]:
        """The title of each element of a class."""
        return [given.get("title") for classes, given, _ in self.found if name in classes]
