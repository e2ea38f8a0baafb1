"""Made-up conversations that show what a chat format does with each part of a chat."""

import json
from dataclasses import dataclass, replace
from typing import Any

from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.spans import Rendered, SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation, Message
from instruction_modelling.rows.messages import REASONING_KEYS

_KEY = {"type": "string", "description": "the key"}
_SCHEMA = {"type": "object", "properties": {"key": _KEY}, "required": ["key"]}
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {"name": "look_up", "description": "Look up a key.", "parameters": _SCHEMA},
    },
)
THOUGHT, SECOND_THOUGHT, VALUE = "Thqfirst1", "Thqsecond2", "Vqvalue3"
USER, MORE = Message("user", "Uqasked4"), Message("user", "Uqmore5")
ANSWER, LAST = Message("assistant", "Aqanswer6"), Message("assistant", "Aqlast7")
SYSTEM = Message("system", "Sqsystem8")


def call(value: str, number: str = "abcdef123") -> dict[str, Any]:
    """Return a call of the one tool with this argument."""
    return {"id": number, "type": "function", "function": {"name": "look_up", "arguments": {"key": value}}}


_CALLING = Message("assistant", "", tool_calls=(call(VALUE),))
_RESULT = Message("tool", "Tqresult9", tool_call_id="abcdef123", name="look_up")
_THINKING = replace(ANSWER, reasoning_content=THOUGHT)
_THINKING_LAST = replace(LAST, reasoning_content=SECOND_THOUGHT)
_TWICE = replace(_CALLING, tool_calls=(call(VALUE), call("Vqother0", "abcdef124")))

CHATS: dict[str, tuple[tuple[Message, ...], bool]] = {
    "an answer": ((USER, ANSWER), False),
    "an answer with reasoning": ((USER, _THINKING), False),
    "an answer with an empty thought": (
        (USER, replace(ANSWER, content=f"<think>\n\n</think>\n\n{ANSWER.content}")),
        False,
    ),
    "a <think> text in the content": (
        (USER, replace(ANSWER, content=f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER.content}")),
        False,
    ),
    "several turns": ((USER, ANSWER, MORE, LAST), False),
    "reasoning in the last of several turns": ((USER, ANSWER, MORE, _THINKING_LAST), False),
    "reasoning in several turns": ((USER, _THINKING, MORE, _THINKING_LAST), False),
    "system text": ((SYSTEM, USER, ANSWER), False),
    "system text between turns": ((USER, ANSWER, SYSTEM, MORE, LAST), False),
    "two users in a row": ((USER, MORE, ANSWER), False),
    "an assistant first": ((ANSWER, MORE, LAST), False),
    "a user last": ((USER, ANSWER, MORE), False),
    "definitions of tools": ((USER, ANSWER), True),
    "a call": ((USER, _CALLING), True),
    "a call and its result": ((USER, _CALLING, _RESULT, LAST), True),
    "words and a call": ((USER, replace(_CALLING, content="Aqwords6"), _RESULT, LAST), True),
    "two calls at once": ((USER, _TWICE, _RESULT, replace(_RESULT, tool_call_id="abcdef124"), LAST), True),
    "reasoning and a call": (
        (USER, replace(_CALLING, reasoning_content=THOUGHT), _RESULT, _THINKING_LAST),
        True,
    ),
    "a turn after a call": ((USER, _CALLING, _RESULT, ANSWER, MORE, LAST), True),
}
"""Each chat by what it shows, and whether it has definitions of tools."""


@dataclass(frozen=True)
class Probe:
    """What became of one chat."""

    sequences: tuple[Rendered, ...] = ()
    reason: str = ""
    """Why it is refused, in a few words."""
    detail: str = ""

    def text_of(self, message: int, *kinds: SpanKind) -> str:
        """Return the texts of a message's spans of these kinds, in the sequence that trains it."""
        owners = [part for part in self.sequences if part.first_message <= message]
        spans = [span for span in owners[-1].spans if span.message == message] if owners else []
        return "".join(owners[-1].text[span.start : span.end] for span in spans if span.kind in kinds)

    def end(self, message: int) -> str:
        """Return what ends a message's turn."""
        return self.text_of(message, SpanKind.END)


class FormatProbes:
    """A chat format's answers to the chats above, and what its template writes of messages."""

    def __init__(self, chat_format: ChatFormat, renderer: TemplateRenderer, for_tools: TemplateRenderer):
        """Take the format and what renders its template, `for_tools` for rows with tools."""
        self._format, self._renderers = chat_format, (renderer, for_tools)
        self.found = {name: self._probe(messages, tools) for name, (messages, tools) in CHATS.items()}

    def _probe(self, messages: tuple[Message, ...], with_tools: bool) -> Probe:
        row = Conversation(0, 0, "", "", messages, TOOLS if with_tools else ())
        try:
            return Probe(self._format.sequences(row))
        except RowRefused as refused:
            return Probe(reason=refused.reason, detail=refused.detail)

    def prompt(self) -> str:
        """Return what asks for an answer: what stands behind a user's text; "" where it is refused."""
        for tools in ((), TOOLS):
            try:
                text = self._format.prompt(Conversation(0, 0, "", "", (USER,), tools)).text
            except RowRefused:
                continue
            return text[text.rfind(USER.content) + len(USER.content) :] if USER.content in text else ""
        return ""

    def written(
        self, fields: list[dict[str, Any]], with_tools: bool = False, asked: bool = False, **variables: Any
    ) -> str | None:
        """Return the template's text of messages given as objects, with the generation prompt if `asked`;
        None where it refuses them."""
        tools = TOOLS if with_tools else ()
        try:
            return self._renderers[with_tools].render_fields(fields, tools, asked, variables)
        except RowRefused:
            return None

    def arguments(self) -> str:
        """Return how the template takes the arguments of calls: object, string, either, or none."""
        taken = []
        for kind, arguments in (("object", {"key": VALUE}), ("string", json.dumps({"key": VALUE}))):
            function = {"name": "look_up", "arguments": arguments}
            of_call = [{"id": "abcdef123", "type": "function", "function": function}]
            asked, answer = USER.for_template(), {"role": "assistant", "content": "", "tool_calls": of_call}
            text = self.written([asked, answer], True) or ""
            # A string that is written once more as JSON has its quotes escaped.
            if VALUE in text and '\\"key' not in text:
                taken.append(kind)
        return "either" if len(taken) == 2 else taken[0] if taken else "none"

    def reasoning_keys(self) -> list[str]:
        """Return the keys under which the template writes reasoning."""
        keys = []
        for key in REASONING_KEYS:
            answer = {"role": "assistant", "content": "", key: THOUGHT}
            calling = {**answer, "tool_calls": [call(VALUE)]}
            plain = {**answer, "content": ANSWER.content}
            asked = USER.for_template()
            texts = [
                self.written([asked, plain]),
                self.written([asked, plain], True),
                self.written([asked, calling], True),
            ]
            if any(THOUGHT in (text or "") for text in texts):
                keys.append(key)
        return keys
