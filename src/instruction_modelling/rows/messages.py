"""One message of a training row: a JSON object to a validated `Message`, and lists of them.

Every function here raises `RowRefused` for what cannot be read faithfully; positions in its details are
0-based."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from instruction_modelling.rows.content import read_content, read_tool_content, unread_of_parts
from instruction_modelling.rows.json_lines import RowRefused, snippet
from instruction_modelling.rows.loss_keys import LOSS_KEYS, message_weight
from instruction_modelling.rows.loss_spans import Stretch, read_loss_spans
from instruction_modelling.rows.tools import tool_calls_of
from instruction_modelling.rows.values import Fields, kind_of, parse_json, text_of

ROLES = ("system", "user", "assistant", "tool")

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
# An assistant's message whose content is its tool calls, as JSON (LLaMA-Factory's ShareGPT, and swift).
CALL_ROLES = ("function_call", "tool_call")
# Roles by their names in small letters.
ROLE_NAMES = (
    {role: role for role in ROLES}
    | {"developer": "system"}
    | dict.fromkeys(("human", "prompter"), "user")
    | dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "ai", "bot", *CALL_ROLES), "assistant")
    | dict.fromkeys(("function", "observation", "function_response", "tool_response", "ipython"), "tool")
)
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")
_ONLY_TEXT = "only text can be trained: replace it by its text or drop the row"
# Whether 1 in them means trained or masked differs between trainers.
_MASKS = ("loss_mask", "mask")
# Message keys that would change what is trained if they were ignored, and what to do instead.
_REFUSED_KEYS = {
    "refusal": "write the refusal's text as the message's content",
    **dict.fromkeys(_MASKS, 'say with "weight" whether the message is trained, 1 or 0'),
    **dict.fromkeys(("audio", "audios", "image", "images", "video", "videos"), _ONLY_TEXT),
}


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str
    weight: float = 1.0
    """Multiplies the loss weight of the message's tokens; finite, >= 0."""
    loss_spans: tuple[Stretch, ...] = ()
    """Characters [start, end) of the content that do not weigh 1, in order, without overlap: their weight
    multiplies too."""
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    """Each `{..., "function": {"name": str, "arguments": object}}`."""
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_key: str = REASONING_KEYS[0]
    """The key under which the row has the reasoning, one of `REASONING_KEYS`."""
    says_weight: bool = field(default=False, compare=False)
    """Whether the message itself asks for a loss: by a weight or flag above 0, or by spans."""

    @property
    def text(self) -> str:
        """Return the content and, right behind it, the reasoning, both as in the file: what positions in a
        message are counted in."""
        return self.content + (self.reasoning_content or "")

    def for_template(self, string_arguments: bool = False) -> dict[str, Any]:
        """Return what a Jinja chat template gets: `role`, `content`, and those optional fields that are set.

        Reasoning stands under `reasoning_content`, and under the row's own key too where that is another.

        Args:
            string_arguments: write the arguments of tool calls as JSON strings, for a template that refuses
                objects.
        """
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [
                _with_string_arguments(call) if string_arguments else call for call in self.tool_calls
            ]
        if self.reasoning_content is not None:
            fields["reasoning_content"] = fields[self.reasoning_key] = self.reasoning_content
        for key in ("tool_call_id", "name"):
            if getattr(self, key) is not None:
                fields[key] = getattr(self, key)
        return fields


def _with_string_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def read_messages(values: Any, column: str, label: str, unread: dict[str, int]) -> list[Message]:
    """Return the messages of a column: a list of objects, or that list as a JSON string.

    A message that is only calls (role `function_call` or `tool_call`) belongs to the assistant's message
    right before it: one turn of the model.

    Args:
        label: what one is called in a refusal ("`label` N").
        unread: gets one more for each key of a message that nothing here reads.
    """
    reason = f"{column} is not a list"
    if isinstance(values, str):
        values = parse_json(values, column, reason, "it must be a list of messages")
    if not isinstance(values, list):
        raise RowRefused(reason, f"{column} is {kind_of(values)}; it must be a list of messages")
    if not values:
        raise RowRefused("no messages", f"{column} is an empty list; drop the row or give it messages")
    messages: list[Message] = []
    for index, value in enumerate(values):
        where = f"{label} {index}"
        if not isinstance(value, dict):
            detail = f"{where} is {snippet(value)}; a message is an object with its role and its content"
            raise RowRefused("message is not an object", detail)
        fields = Fields(value)
        message, is_call = _read_message(fields, where)
        if is_call and message.loss_spans:
            detail = f"{where} has loss_spans on a content that is calls; only text has weights by character"
            raise RowRefused("loss_spans on calls", detail)
        for key in [*fields.unread(), *unread_of_parts(fields.peek("content"))]:
            unread[f"{label} key {key}"] = unread.get(f"{label} key {key}", 0) + 1
        before = messages[-1] if messages else None
        if is_call and before and before.role == "assistant" and before.weight == message.weight:
            messages[-1] = _with_calls(before, message, where)
        else:
            messages.append(message)
    return messages


def _with_calls(before: Message, calls: Message, where: str) -> Message:
    """Return the assistant's message and, behind it, one that is only calls.

    Raises:
        RowRefused: the second has reasoning, which no turn has behind its text or calls, or another name."""
    reasoning = calls.reasoning_content
    if reasoning and (before.content.strip() or before.tool_calls or before.reasoning_content):
        raise RowRefused(
            "reasoning behind text",
            f"{where} has reasoning, and belongs to the assistant's message before it, which has text, calls "
            "or reasoning already; write one message of them, its reasoning before all else",
        )
    if calls.name not in (None, before.name):
        detail = f"{where} has another name than the assistant's message before it, to which its calls belong"
        raise RowRefused("ambiguous name", f"{detail}; keep one of them")
    return replace(
        before,
        tool_calls=before.tool_calls + calls.tool_calls,
        reasoning_content=reasoning or before.reasoning_content,
        reasoning_key=calls.reasoning_key if reasoning else before.reasoning_key,
        says_weight=before.says_weight or calls.says_weight,
    )


def _read_message(fields: Fields, where: str) -> tuple[Message, bool]:
    """Return a message, and whether its role says that its content is tool calls."""
    name, role = _role(fields, where)
    _refuse_keys(fields, role, where)
    is_call = name in CALL_ROLES
    calls = _calls(fields, role, where)
    reasoning, reasoning_key = _reasoning(fields, role, where)
    content, content_key = _content_value(fields, where)
    in_parts = None
    if is_call:
        calls += _calls_in_content(content, f"{where}: {content_key}")
        text = ""
    elif content is None and (calls or reasoning is not None):
        text = ""
    elif content is None:
        detail = f'{where} has no "{content_key}", or null; write a string ("" if it is empty)'
        raise RowRefused("missing content", detail)
    elif role == "tool":
        text = read_tool_content(content, f"{where}: {content_key}")
    else:
        text, in_parts = read_content(content, f"{where}: {content_key}")
    if in_parts is not None:
        if role != "assistant":
            detail = f"{where} is a {role} message with reasoning; only an assistant message can have it"
            raise RowRefused(f"reasoning on a {role} message", detail)
        if reasoning not in (None, in_parts):
            detail = (
                f"{where} has different reasoning in {reasoning_key} and in its content; keep one of them"
            )
            raise RowRefused("ambiguous reasoning", detail)
        reasoning = in_parts
    weight, spans = message_weight(fields, where), read_loss_spans(fields, role, where)
    message = Message(
        role=role,
        content=text,
        weight=weight,
        loss_spans=spans,
        reasoning_content=reasoning,
        tool_calls=calls,
        tool_call_id=_optional_text(fields, "tool_call_id", where),
        name=_optional_text(fields, "name", where),
        reasoning_key=reasoning_key,
        says_weight=weight > 0 and (bool(spans) or any(key in fields for key in LOSS_KEYS)),
    )
    return message, is_call


def _refuse_keys(fields: Fields, role: str, where: str) -> None:
    """Refuse keys that would change what is trained, and an assistant's message that says of itself that it
    is no answer (OpenAI's harmony format)."""
    for key, remedy in _REFUSED_KEYS.items():
        if fields.get(key) or (key in _MASKS and key in fields):
            raise RowRefused(
                f"{key} is not supported", f'{where} has "{key}": {snippet(fields[key])}; {remedy}'
            )
    if role != "assistant":
        return
    for key, of_answers, remedy in (
        ("channel", ("final",), 'write a thought as the "reasoning_content" of the message it leads to'),
        ("recipient", ("all", "user"), 'write a call into "tool_calls"'),
    ):
        if fields.get(key) and fields[key] not in of_answers:
            detail = f'{where} has "{key}": {snippet(fields[key])}, so it is no answer; {remedy}'
            raise RowRefused(f"{key} is not supported", detail)


def _role(fields: Fields, where: str) -> tuple[str, str]:
    """Return a message's role as it is written, in small letters, and which of `ROLES` it is."""
    given = [(key, fields[key]) for key in _ROLE_KEYS if key in fields]
    known = ", ".join(ROLE_NAMES)
    if not given:
        raise RowRefused("missing role", f'{where} has no "role" (or "from"); it must be one of: {known}')
    roles = []
    for key, role in given:
        name = role.lower() if isinstance(role, str) else ""
        if name not in ROLE_NAMES:
            raise RowRefused(
                "unknown role", f'{where} has "{key}": {snippet(role)}; it must be one of: {known}'
            )
        roles.append((name, ROLE_NAMES[name]))
    if roles[0][1] != roles[-1][1]:
        raise RowRefused(
            "ambiguous role", f'{where} has different roles in "role" and "from"; keep one of them'
        )
    return roles[0]


def _content_value(fields: Fields, where: str) -> tuple[Any, str]:
    """Return what a message has as its content (None without one), and under which key."""
    given = [(fields[key], key) for key in _CONTENT_KEYS if key in fields]
    if len(given) > 1 and given[0][0] != given[1][0]:
        detail = f'{where} has different texts in "content" and "value"; keep one of them'
        raise RowRefused("ambiguous content", detail)
    return given[0] if given else (None, "value" if "from" in fields else "content")


def _reasoning(fields: Fields, role: str, where: str) -> tuple[str | None, str]:
    """Return the reasoning of a message, None where it has none, and the key under which it stands."""
    given = {key: fields[key] for key in REASONING_KEYS if key in fields}
    if role != "assistant":
        # Tables with one schema for all messages fill the field with "" where it does not apply.
        for key in (key for key, text in given.items() if text != ""):
            detail = f'{where} is a {role} message with "{key}"; only an assistant message can have it'
            raise RowRefused(f"{key} on a {role} message", detail)
        return None, REASONING_KEYS[0]
    texts = {
        text_of(text, f"{where}: {key}", "reasoning is not a string"): key for key, text in given.items()
    }
    if len(texts) > 1:
        detail = f"{where} has different texts in {', '.join(given)}; keep one of them"
        raise RowRefused("ambiguous reasoning", detail)
    return (next(iter(texts)), next(iter(given))) if texts else (None, REASONING_KEYS[0])


def _calls(fields: Fields, role: str, where: str) -> tuple[dict[str, Any], ...]:
    """Return the calls in a message's `tool_calls`, or in OpenAI's older `function_call`."""
    calls: tuple[dict[str, Any], ...] = ()
    for key in ("tool_calls", "function_call"):
        # Tables with one schema for all messages fill the field with what is empty where it does not apply.
        if not fields.get(key):
            continue
        if role != "assistant":
            detail = f'{where} is a {role} message with "{key}"; only an assistant message can have them'
            raise RowRefused(f"{key} on a {role} message", detail)
        if calls:
            detail = f'{where} has "tool_calls" and "function_call"; keep one of them'
            raise RowRefused("ambiguous tool_calls", detail)
        calls = tool_calls_of(fields[key] if key == "tool_calls" else [fields[key]], f"{where}: {key}")
    return calls


def _calls_in_content(content: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Return the calls that a message of role function_call has as its content: one, or a list, as JSON."""
    if isinstance(content, str):
        remedy = 'write {"name": ..., "arguments": {...}} or a list of these'
        content = parse_json(content, where, "bad tool_calls", remedy)
    return tool_calls_of(content if isinstance(content, list) else [content], where)


def _optional_text(fields: Fields, key: str, where: str) -> str | None:
    return text_of(fields[key], f"{where}: {key}", f"{key} is not a string") if key in fields else None
