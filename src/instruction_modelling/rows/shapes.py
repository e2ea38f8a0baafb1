"""The shapes a training row may have: its columns to messages, tools, id and what its template gets.

Every function here raises `RowRefused` for a row that cannot be read faithfully."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from instruction_modelling.rows.advice import advice
from instruction_modelling.rows.json_lines import ROW_SHAPES, RowRefused, snippet
from instruction_modelling.rows.loss_keys import row_weight, times
from instruction_modelling.rows.loss_spans import SPAN_KEYS
from instruction_modelling.rows.messages import Message, read_messages
from instruction_modelling.rows.values import (
    Fields,
    check_encodable,
    kind_of,
    parse_json,
    text_of,
    without_null_keys,
)

MESSAGE_COLUMNS = ("messages", "conversations", "conversation")
# The keys of a question and its answer in one object of a `conversation`.
_EXCHANGES = (("input", "output"), ("human", "assistant"), ("user", "assistant"))
# What the row of an instruction may have beside it.
_BESIDE_INSTRUCTION = ("input", "context", "history")
# Where false says that an answer is a bad one.
_LIKED = ("label", "kto_tag")
_SYSTEM_COLUMNS = ("system", "system_prompt")
_MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
# What the renderer itself gives to a chat template.
_RESERVED_VARIABLES = (
    *("messages", "conversation", "tools", "documents", "chat_template", "tokenizer", "tokenize"),
    *("add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask", "return_dict"),
    *("return_tensors", "padding", "truncation", "max_length", "tokenizer_kwargs"),
)


@dataclass
class RowContext:
    """What reading one row needs besides the row."""

    unread: dict[str, int]
    """How often each key of a message was there and nothing read it."""
    by_role: tuple[tuple[str, str], ...] = ()
    """Columns that are messages of a role each (`--columns`), in their order: (column, role)."""


def row_id(columns: Mapping[str, Any]) -> str | None:
    """Return the row's `id` as a string; None if it has none."""
    value = columns.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | None):
        raise RowRefused(
            "bad id", f"id is {kind_of(value)}, {snippet(value)}; it must be a string or an integer"
        )
    return None if value is None else text_of(value, "id", "bad id")


def row_dataset(columns: Mapping[str, Any]) -> str | None:
    """Return the row's `dataset`; None if it has none."""
    return text_of(columns["dataset"], "dataset", "bad dataset") if "dataset" in columns else None


def text_beside(columns: Mapping[str, Any]) -> str:
    """Return the text that the row is trained beside; "" if it has none."""
    if "text_beside" not in columns:
        return ""
    text = text_of(columns["text_beside"], "text_beside", "bad text_beside")
    if not text.strip():
        raise RowRefused("bad text_beside", "text_beside is blank; leave it out, or write a text")
    return text


def template_variables(columns: Fields) -> dict[str, Any]:
    """Return what the row gives its chat template besides messages and tools: `chat_template_kwargs`, an
    object or that object as a JSON string."""
    column, reason = "chat_template_kwargs", "bad chat_template_kwargs"
    given = columns.get(column)
    if isinstance(given, str):
        value = parse_json(given, column, reason, "write an object") if given.strip() else {}
    else:
        value = without_null_keys({} if given is None else given)
    if not isinstance(value, dict):
        raise RowRefused(reason, f"{column} is {kind_of(value)}, {snippet(value)}; it must be an object")
    check_encodable(value, column, reason)
    taken = next((name for name in _RESERVED_VARIABLES if name in value), None)
    if taken:
        raise RowRefused(reason, f'{column} has "{taken}", which is given by the renderer; leave it out')
    return value


def row_messages(columns: Fields, context: RowContext) -> tuple[tuple[Message, ...], bool]:
    """Return a row's messages, and whether it is plain (`prompt` and `completion` are strings)."""
    media = next((name for name in _MEDIA_COLUMNS if columns.get(name)), None)
    if media:
        detail = f'the row has "{media}"; only text can be trained: drop the column or the row'
        raise RowRefused(f"{media} is not supported", detail)
    spans = next((name for name in SPAN_KEYS if columns.get(name)), None)
    if spans:
        detail = f'the row has "{spans}", which counts characters of one message: write the row as "messages"'
        raise RowRefused(f"{spans} of a row", f"{detail}, and the spans on the message")
    if not context.by_role:
        _refuse_disliked(columns)
    messages, plain = _messages_by_columns(columns, context)
    system = _system(columns)
    if plain and (system or columns.get("tools") or columns.get("functions") or template_variables(columns)):
        raise RowRefused(
            "system or tools on a plain row",
            'a row whose "prompt" and "completion" are strings has no chat format to put "system", "tools" '
            'or "chat_template_kwargs" in; write the prompt and the completion as lists of messages',
        )
    messages = _with_system(messages, system)
    if not any(
        message.content.strip() or message.reasoning_content or message.tool_calls for message in messages
    ):
        raise RowRefused("no content", f"all of the row's {len(messages)} messages are empty; drop the row")
    factor = row_weight(columns)
    if factor != 1:
        messages = [
            replace(message, weight=times(message.weight, factor, f"message {index}"))
            for index, message in enumerate(messages)
        ]
    return tuple(messages), plain


def _messages_by_columns(columns: Fields, context: RowContext) -> tuple[list[Message], bool]:
    """Return the messages in the first shape that the row's columns have, and whether the row is plain."""
    lists = [name for name in MESSAGE_COLUMNS if name in columns]
    if context.by_role:
        return _by_role(columns, context.by_role), False
    if len(lists) > 1:
        named = " and ".join(f'"{name}"' for name in lists)
        detail = f"the row has both {named}; keep one of them, or make the other null"
        raise RowRefused("ambiguous columns", detail)
    if lists:
        values = columns[lists[0]]
        if lists[0] == "conversation" and _is_list_of_objects(values) and not {"role", "from"} & {*values[0]}:
            return _exchanges(values), False
        messages = read_messages(values, lists[0], "message", context.unread)
        _refuse_answer_beside(columns, messages, lists[0])
        return messages, False
    if "prompt" in columns and ("completion" in columns or "response" in columns):
        return _prompt_and_answer(columns, context)
    if "instruction" in columns and ("output" in columns or "response" in columns):
        return _instruction(columns), False
    if "question" in columns and "response" in columns:
        _refuse_left_out(columns, "question", "response")
        return [_said("user", columns, "question"), _said("assistant", columns, "response")], False
    raise _no_shape(columns)


def _no_shape(columns: Fields) -> RowRefused:
    names = snippet(sorted(columns)) if columns else "none that is not null"
    detail = f"the row's columns are {names}; it must have {ROW_SHAPES}{advice(columns)}"
    return RowRefused("no recognised columns", detail)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _by_role(columns: Fields, by_role: tuple[tuple[str, str], ...]) -> list[Message]:
    """Return a message for each column that --columns gives a role; a column that is null is none."""
    missing = [column for column, role in by_role if role in ("user", "assistant") and column not in columns]
    if missing:
        raise RowRefused("missing column", f'the row has no "{missing[0]}", which --columns names')
    messages = [_said(role, columns, column) for column, role in by_role if column in columns]
    return [message for message in messages if message.role != "system" or message.content.strip()]


def _said(role: str, columns: Fields, column: str) -> Message:
    return Message(role, text_of(columns[column], column, f"bad {column}"))


def _system(columns: Fields) -> str:
    """Return the system prompt of the columns `system` and `system_prompt`; "" where it is blank."""
    given = {name: text_of(columns[name], name, f"bad {name}") for name in _SYSTEM_COLUMNS if name in columns}
    texts = {text for text in given.values() if text.strip()}
    if len(texts) > 1:
        detail = 'the columns "system" and "system_prompt" are two different system prompts; keep one of them'
        raise RowRefused("two system prompts", detail)
    return texts.pop() if texts else ""


def _with_system(messages: list[Message], system: str) -> list[Message]:
    """Return the messages behind the system prompt of the row's `system` column."""
    if not system:
        return messages
    if messages and messages[0].role == "system":
        if messages[0].content == system:
            return messages
        detail = 'the column "system" and message 0 are two different system prompts; keep one of them'
        raise RowRefused("two system prompts", detail)
    return [Message("system", system), *messages]


def _prompt_and_answer(columns: Fields, context: RowContext) -> tuple[list[Message], bool]:
    """Return the messages of `prompt` and `completion` (plain where both are strings) or `response`."""
    name = "completion" if "completion" in columns else "response"
    prompt, answer = columns["prompt"], columns[name]
    if isinstance(prompt, str) and isinstance(answer, str):
        _refuse_left_out(columns, "prompt", name)
        return [_said("user", columns, "prompt"), _said("assistant", columns, name)], name == "completion"
    if isinstance(prompt, list) and isinstance(answer, list):
        before = read_messages(prompt, "prompt", "prompt message", context.unread)
        return before + read_messages(answer, name, f"{name} message", context.unread), False
    if isinstance(prompt, list) and isinstance(answer, str):
        before = read_messages(prompt, "prompt", "prompt message", context.unread)
        return [*before, _said("assistant", columns, name)], False
    raise RowRefused(
        f"prompt and {name} do not match",
        f"prompt is {kind_of(prompt)} and {name} is {kind_of(answer)}; prompt must be a string or a list of "
        f"messages, {name} likewise, and a list only where prompt is one",
    )


def _refuse_disliked(columns: Fields) -> None:
    """Refuse a row whose answer preference data (KTO) say is a bad one."""
    name = next((name for name in _LIKED if columns.peek(name) is False), None)
    if name:
        answer = next((key for key in ("completion", "response") if key in columns), "answer")
        raise RowRefused(
            f"{answer} that is disliked",
            f'the row has "{name}": false, which in preference data (KTO) says that its {answer} is a bad '
            f"one: leave such rows out (jq -c 'select(.{name})' FILE), or drop the column to train on them",
        )


def _refuse_answer_beside(columns: Fields, messages: list[Message], lists: str) -> None:
    """Refuse messages that end before the answer, where that stands in a column of its own: it would be left
    out."""
    if messages[-1].role == "assistant":
        return
    for name in ("completion", "response", "output", "answer"):
        value = columns.peek(name)
        if isinstance(value, str) and value.strip():
            raise RowRefused(
                f"{name} beside {lists}",
                f'the row\'s "{lists}" end with a {messages[-1].role} message, and its "{name}" would be '
                "left out: write it as their last message, or drop the column",
            )


def _refuse_left_out(columns: Fields, asked: str, answered: str) -> None:
    """Refuse a question that stands beside what it asks about, or beside the turns before it: the model would
    learn to answer without them."""
    for name in _BESIDE_INSTRUCTION:
        value = columns.peek(name)
        if value.strip() if isinstance(value, str) else value:
            names = f"{asked}=instruction" + (f",{answered}=output" if answered == "completion" else "")
            raise RowRefused(
                f"{name} beside a {asked}",
                f'the row has "{name}", {snippet(value)}, which is read behind an "instruction" alone and '
                f"would be left out: give --columns {names} to have it read, or --columns "
                f"{asked}=user,{answered}=assistant to leave it out",
            )


def _exchanges(values: list[Any]) -> list[Message]:
    """Return the messages of a `conversation` whose objects are a question and its answer each: XTuner's
    `system`, `input` and `output` (without a loss where `output_with_loss` is false), Firefly's `human` and
    `assistant`."""
    messages = []
    for index, value in enumerate(values):
        where, reason = f"conversation {index}", "bad conversation"
        given = (
            {key: text for key, text in value.items() if text is not None} if isinstance(value, dict) else {}
        )
        trained = given.pop("output_with_loss", True)
        names = next(
            (pair for pair in _EXCHANGES if pair[1] in given and given.keys() <= {*pair, "system"}), None
        )
        if names is None or not isinstance(trained, bool):
            detail = (
                f"{where} is {snippet(value)}; it must have role and content, or input and output, or human"
            )
            raise RowRefused(reason, f"{detail} and assistant")
        for role, name in zip(("system", "user", "assistant"), ("system", *names), strict=True):
            text = text_of(given.get(name, ""), f"{where}: {name}", reason)
            if role == "assistant":
                messages.append(Message(role, text, float(trained)))
            elif text.strip():
                messages.append(Message(role, text))
    return messages


def _instruction(columns: Fields) -> list[Message]:
    """Return the messages of a row in Alpaca's shape (`input`, `output`) or Dolly's (`context`,
    `response`)."""
    messages = []
    history = columns.get("history", [])
    if isinstance(history, str):
        remedy = "it must be a list of [user, assistant] pairs"
        history = parse_json(history, "history", "bad history", remedy) if history.strip() else []
    if not isinstance(history, list):
        raise RowRefused(
            "bad history", f"history is {kind_of(history)}; it must be a list of [user, assistant] pairs"
        )
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            detail = f"history pair {index} is {snippet(pair)}; it must be two strings, [user, assistant]"
            raise RowRefused("bad history", detail)
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append(Message(role, text_of(text, f"history pair {index}, {role}", "bad history")))
    instruction = text_of(columns["instruction"], "instruction", "bad instruction")
    context = _either(columns, "input", "context")
    user = f"{instruction}\n\n{context}" if context.strip() else instruction
    return [*messages, Message("user", user), Message("assistant", _either(columns, "output", "response"))]


def _either(columns: Fields, *names: str) -> str:
    """Return the text of the one of these columns that is there ("" without any)."""
    texts = {name: text_of(columns[name], name, f"bad {name}") for name in names if name in columns}
    said = {text for text in texts.values() if text.strip()}
    if len(said) > 1:
        raise RowRefused(
            "ambiguous columns", f"the row has different texts in {', '.join(texts)}; keep one of them"
        )
    return said.pop() if said else next(iter(texts.values()), "")
