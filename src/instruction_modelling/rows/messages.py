"""The messages of one training row: its columns (JSON values, no null among them) to validated `Message`s.

`conversations` says which shapes a row may have. Every function here raises `RowRefused` for a row that
cannot be read faithfully; positions in its details are 0-based.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from instruction_modelling.rows.json_lines import ROW_SHAPES, RowRefused, decode_json, snippet

ROLES = ("system", "user", "assistant", "tool")

_OPENAI_ROLES = {role: role for role in ROLES} | {"developer": "system", "function": "tool"}
_SHAREGPT_ROLES = (
    _OPENAI_ROLES
    | {"human": "user"}
    | dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model"), "assistant")
    | dict.fromkeys(("observation", "function_response"), "tool")
)
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_TOOL_CALL = '{"type": "function", "function": {"name": ..., "arguments": ...}}'
_TOOL_CALLS_REMEDY = f'write an assistant message with "tool_calls": [{_TOOL_CALL}]'
# Message keys that would change what is trained if they were ignored, and what to do instead.
_REFUSED_KEYS = {
    "train": 'leave the key out, and write "weight": 0 on a message that is not to be trained',
    "function_call": _TOOL_CALLS_REMEDY,
    "audio": "only text can be trained: replace the audio by its text or drop the row",
    "refusal": "write the refusal's text as the message's content",
}
_JSON_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str
    weight: float = 1.0
    """Multiplies the loss weight of the message's tokens; finite, >= 0."""
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    """As given."""
    tool_call_id: str | None = None
    name: str | None = None

    def for_template(self) -> dict[str, Any]:
        """Return what a Jinja chat template gets: `role`, `content`, and those optional fields that are
        set."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = list(self.tool_calls)
        for key in ("reasoning_content", "tool_call_id", "name"):
            if getattr(self, key) is not None:
                fields[key] = getattr(self, key)
        return fields


def row_id(columns: Mapping[str, Any]) -> str | None:
    """Return the row's `id` as a string; None if it has none."""
    value = columns.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | None):
        raise RowRefused(
            "bad id", f"id is {_kind(value)}, {snippet(value)}; it must be a string or an integer"
        )
    return None if value is None else _text(value, "id", "bad id")


def row_dataset(columns: Mapping[str, Any]) -> str | None:
    """Return the row's `dataset`; None if it has none."""
    return _text(columns["dataset"], "dataset", "bad dataset") if "dataset" in columns else None


def row_tools(columns: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the row's `tools`, which are a list of objects, or that list written as a JSON string."""
    if columns.get("functions"):
        raise RowRefused(
            "functions is not supported", 'the column "functions" is a legacy form; write it as "tools"'
        )
    tools = columns.get("tools") or []
    if isinstance(tools, str):
        tools = _json_string(tools) if tools.strip() else []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        detail = f"tools is {snippet(tools)}; it must be a list of objects, or that list as a JSON string"
        raise RowRefused("bad tools", detail)
    _check_encodable(tools, "tools", "bad tools")
    return tuple(tools)


def row_messages(columns: Mapping[str, Any]) -> tuple[tuple[Message, ...], bool]:
    """Return a row's messages, and whether it is plain (`prompt` and `completion` are strings)."""
    messages, plain = _messages_by_columns(columns)
    system = columns.get("system", "")
    if plain and (system or columns.get("tools")):
        raise RowRefused(
            "system or tools on a plain row",
            'a row whose "prompt" and "completion" are strings has no chat format to put "system" or "tools" '
            "in; write the prompt and the completion as lists of messages",
        )
    messages = _with_system(messages, _text(system, "system", "bad system"))
    if not any(
        message.content.strip() or message.reasoning_content or message.tool_calls for message in messages
    ):
        raise RowRefused("no content", f"all of the row's {len(messages)} messages are empty; drop the row")
    return tuple(messages), plain


def _messages_by_columns(columns: Mapping[str, Any]) -> tuple[list[Message], bool]:
    """Return the messages in the first shape that the row's columns have, and whether the row is plain."""
    if "messages" in columns and "conversations" in columns:
        detail = 'the row has both "messages" and "conversations"; keep one of them, or make the other null'
        raise RowRefused("ambiguous columns", detail)
    if "messages" in columns:
        return _message_list(columns["messages"], "messages", "message", _openai_message), False
    if "conversations" in columns:
        return _message_list(columns["conversations"], "conversations", "message", _sharegpt_message), False
    if "prompt" in columns and "completion" in columns:
        return _prompt_completion(columns["prompt"], columns["completion"])
    if "instruction" in columns and "output" in columns:
        return _alpaca(columns), False
    names = snippet(sorted(columns)) if columns else "none that is not null"
    raise RowRefused("no recognised columns", f"the row's columns are {names}; it must have {ROW_SHAPES}")


def _with_system(messages: list[Message], system: str) -> list[Message]:
    """Return the messages behind the system prompt of the row's `system` column."""
    if not system.strip():
        return messages
    if messages[0].role == "system":
        if messages[0].content == system:
            return messages
        detail = 'the column "system" and message 0 are two different system prompts; keep one of them'
        raise RowRefused("two system prompts", detail)
    return [Message("system", system), *messages]


def _prompt_completion(prompt: Any, completion: Any) -> tuple[list[Message], bool]:
    if isinstance(prompt, str) and isinstance(completion, str):
        user = Message("user", _text(prompt, "prompt", "bad prompt"))
        return [user, Message("assistant", _text(completion, "completion", "bad completion"))], True
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _message_list(prompt, "prompt", "prompt message", _openai_message)
        return before + _message_list(completion, "completion", "completion message", _openai_message), False
    raise RowRefused(
        "prompt and completion do not match",
        f"prompt is {_kind(prompt)} and completion is {_kind(completion)}; "
        "both must be strings, or both lists of messages",
    )


def _alpaca(columns: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a row in Alpaca's shape."""
    messages = []
    history = columns.get("history", [])
    if not isinstance(history, list):
        raise RowRefused(
            "bad history", f"history is {_kind(history)}; it must be a list of [user, assistant] pairs"
        )
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            detail = f"history pair {index} is {snippet(pair)}; it must be two strings, [user, assistant]"
            raise RowRefused("bad history", detail)
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append(Message(role, _text(text, f"history pair {index}, {role}", "bad history")))
    instruction = _text(columns["instruction"], "instruction", "bad instruction")
    context = _text(columns.get("input", ""), "input", "bad input")
    output = _text(columns["output"], "output", "bad output")
    user = f"{instruction}\n\n{context}" if context.strip() else instruction
    return [*messages, Message("user", user), Message("assistant", output)]


def _message_list(
    values: Any, column: str, label: str, parse: Callable[[dict[str, Any], str], Message]
) -> list[Message]:
    """Return the messages of a column; `parse` reads one, given where it stands ("`label` N")."""
    if not isinstance(values, list):
        raise RowRefused(
            f"{column} is not a list", f"{column} is {_kind(values)}; it must be a list of messages"
        )
    if not values:
        raise RowRefused("no messages", f"{column} is an empty list; drop the row or give it messages")
    messages = []
    for index, value in enumerate(values):
        where = f"{label} {index}"
        if not isinstance(value, dict):
            detail = f"{where} is {snippet(value)}; a message is an object with its role and its content"
            raise RowRefused("message is not an object", detail)
        messages.append(parse(value, where))
    return messages


def _openai_message(value: dict[str, Any], where: str) -> Message:
    return _message(value, where, ("role", "content"), _OPENAI_ROLES)


def _sharegpt_message(value: dict[str, Any], where: str) -> Message:
    keys = ("from", "value") if value.get("role") is None else ("role", "content")
    return _message(value, where, keys, _SHAREGPT_ROLES)


def _message(value: dict[str, Any], where: str, keys: tuple[str, str], roles: dict[str, str]) -> Message:
    role_key, content_key = keys
    role = _role(value.get(role_key), role_key, where, roles)
    for key, remedy in _REFUSED_KEYS.items():
        if value.get(key) is not None:
            raise RowRefused(
                f"{key} is not supported", f'{where} has "{key}": {snippet(value[key])}; {remedy}'
            )
    reasoning = _reasoning(value, role, where)
    tool_calls = _tool_calls(value.get("tool_calls"), role, where)
    content = value.get(content_key)
    if content is None and (tool_calls or reasoning is not None):
        content = ""
    return Message(
        role=role,
        content=_content(content, content_key, where),
        weight=_weight(value.get("weight"), where),
        reasoning_content=reasoning,
        tool_calls=tool_calls,
        tool_call_id=_optional_text(value, "tool_call_id", where),
        name=_optional_text(value, "name", where),
    )


def _role(role: Any, key: str, where: str, roles: dict[str, str]) -> str:
    known = ", ".join(roles)
    if role is None:
        raise RowRefused("missing role", f'{where} has no "{key}"; it must be one of: {known}')
    if role == "function_call":
        raise RowRefused(
            "function_call is not supported", f'{where} has "{key}": "function_call"; {_TOOL_CALLS_REMEDY}'
        )
    if not isinstance(role, str) or role not in roles:
        raise RowRefused("unknown role", f'{where} has "{key}": {snippet(role)}; it must be one of: {known}')
    return roles[role]


def _content(content: Any, key: str, where: str) -> str:
    if content is None:
        detail = f'{where} has no "{key}"; write a string ("" if it is empty)'
        raise RowRefused("missing content", detail)
    if not isinstance(content, list):
        return _text(content, f"{where}: {key}", "content is not a string")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            shown = f"of type {snippet(kind)}" if isinstance(kind, str) else snippet(part)
            remedy = 'only {"type": "text", "text": ...} can be trained'
            detail = f"{where}: content part {index} is {shown}; {remedy}"
            raise RowRefused("content part is not text", detail)
        texts.append(
            _text(part.get("text"), f"{where}: text of content part {index}", "content is not a string")
        )
    return "".join(texts)


def _weight(weight: Any, where: str) -> float:
    if weight is None:
        return 1.0
    try:
        # In Python a bool is a number, and a string can be made one; in a file neither is a weight.
        number = math.nan if isinstance(weight, bool | str) else float(weight)
    except (TypeError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise RowRefused(
            "bad weight", f"{where}: weight is {snippet(weight)}; it must be a finite number >= 0"
        )
    return number


def _reasoning(value: dict[str, Any], role: str, where: str) -> str | None:
    """Return the reasoning of a message under whichever key it stands; None where it has none."""
    given = {key: value[key] for key in _REASONING_KEYS if value.get(key) is not None}
    if role != "assistant":
        # Tables with one schema for all messages fill the field with "" where it does not apply.
        for key in (key for key, text in given.items() if text != ""):
            detail = f'{where} is a {role} message with "{key}"; only an assistant message can have it'
            raise RowRefused(f"{key} on a {role} message", detail)
        return None
    texts = {_text(text, f"{where}: {key}", "reasoning is not a string") for key, text in given.items()}
    if len(texts) > 1:
        detail = f"{where} has different texts in {', '.join(given)}; keep one of them"
        raise RowRefused("ambiguous reasoning", detail)
    return texts.pop() if texts else None


def _tool_calls(calls: Any, role: str, where: str) -> tuple[dict[str, Any], ...]:
    if calls is None or calls == []:
        return ()
    if role != "assistant":
        detail = f'{where} is a {role} message with "tool_calls"; only an assistant message can have them'
        raise RowRefused(f"tool_calls on a {role} message", detail)
    for index, call in enumerate(calls if isinstance(calls, list) else [calls]):
        function = (call.get("function") or call) if isinstance(call, dict) else None
        if (
            not isinstance(calls, list)
            or not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
        ):
            raise RowRefused(
                "bad tool_calls",
                f"{where}: tool call {index} is {snippet(call)}; tool_calls must be a list of {_TOOL_CALL}",
            )
    _check_encodable(calls, f"{where}: tool_calls", "bad tool_calls")
    return tuple(calls)


def _optional_text(value: dict[str, Any], key: str, where: str) -> str | None:
    return None if value.get(key) is None else _text(value[key], f"{where}: {key}", f"{key} is not a string")


def _text(value: Any, where: str, reason: str) -> str:
    """Return the value, a string; `reason` is the reason for which a value of another type is refused."""
    if not isinstance(value, str):
        raise RowRefused(reason, f"{where} is {_kind(value)}, {snippet(value)}; it must be a string")
    _check_encodable(value, where, reason)
    return value


def _check_encodable(value: Any, where: str, reason: str) -> None:
    """Refuse lone surrogates, which no tokenizer takes, and NaN or infinities, which are not JSON."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowRefused(
            "lone surrogate",
            f"{where} has half of a surrogate pair (\\u{ord(error.object[error.start]):04x}) after "
            f"{snippet(error.object[max(0, error.start - 20) : error.start])}; write the whole character",
        ) from None
    except ValueError:
        detail = (
            f"{where} is {snippet(value)}, with NaN or an infinity, which JSON does not have; write a number"
        )
        raise RowRefused(reason, detail) from None


def _json_string(text: str) -> Any:
    try:
        value = decode_json(text)
    except json.JSONDecodeError as error:
        detail = (
            f"tools is a string that is not JSON ({error.msg} at its column {error.pos + 1}): {snippet(text)}"
        )
        raise RowRefused("bad tools", f"{detail}; write a list of objects") from None
    if isinstance(value, RowRefused):
        raise RowRefused(value.reason, f"tools: {value.detail}")
    return value


def _kind(value: Any) -> str:
    """Return what a JSON value is, in words."""
    return _JSON_KINDS.get(type(value), "null")
