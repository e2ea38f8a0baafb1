"""The content of a message: a string, or a list of parts of which only text and reasoning can be trained."""

import json
from typing import Any

from instruction_modelling.rows.json_lines import RowRefused, snippet
from instruction_modelling.rows.loss_keys import LOSS_KEYS
from instruction_modelling.rows.values import check_encodable, text_of

_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("thinking", "reasoning")
_NOT_TEXT = "content part is not text"
_NOT_STRING = "content is not a string"
_MEDIA = ("image", "image_url", "input_image", "video", "video_url", "audio", "audio_url", "input_audio")
_TRAINED = 'only {"type": "text", "text": ...} and {"type": "thinking", ...} can be trained'
# By the type of the part; Anthropic's calls and their results are parts.
_REMEDIES = {
    **dict.fromkeys(_MEDIA, "only text can be trained: replace it by its text or drop the row"),
    "tool_use": 'write it into the message\'s "tool_calls"',
    "tool_result": 'write it as a message of its own, of the role "tool"',
}


def read_content(content: Any, where: str) -> tuple[str, str | None]:
    """Return the text of a message's content, and the text of its reasoning parts (None without them).

    Raises:
        RowRefused: a part is neither text nor reasoning, carries a loss weight, or reasoning comes behind
            text, where no template writes it.
    """
    if not isinstance(content, list):
        return text_of(content, where, _NOT_STRING), None
    texts: list[str] = []
    reasoning: list[str] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        named = f"content part {index}"
        if kind in _TEXT_PARTS and part.get("thought"):
            # Gemini's way to say that a text is one.
            kind, part = "thinking", {**part, "thinking": part.get("text")}
        if kind in _TEXT_PARTS:
            texts.append(text_of(part.get("text"), f"{where}: text of {named}", _NOT_STRING))
        elif kind in _REASONING_PARTS:
            if "".join(texts).strip():
                detail = f"{where}: {named} is reasoning behind text; put it before the text, or leave it out"
                raise RowRefused("reasoning behind text", detail)
            reasoning.append(_reasoning_part(part, f"{where}: reasoning of {named}"))
        else:
            shown = f"of type {snippet(kind)}" if isinstance(kind, str) else snippet(part)
            remedy = _REMEDIES.get(kind) if isinstance(kind, str) else None
            raise RowRefused(_NOT_TEXT, f"{where}: {named} is {shown}; {remedy or _TRAINED}")
        weighed = next((key for key in LOSS_KEYS if part.get(key) is not None), None)
        if weighed:
            shown = f'"{weighed}": {snippet(part[weighed])}'
            detail = f"{where}: {named} has {shown}; only a whole message has a weight"
            raise RowRefused("weight on a content part", detail)
    return "".join(texts), "".join(reasoning) if reasoning else None


def unread_of_parts(content: Any) -> list[str]:
    """Return the keys of a content's parts that nothing here reads, `content part KEY` each."""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return [f"content part {key}" for part in parts for key, value in part.items() if _is_unread(key, value)]


def _is_unread(key: str, value: Any) -> bool:
    return value is not None and key not in ("type", "text", "thought", *_REASONING_PARTS, *LOSS_KEYS)


def _reasoning_part(part: dict[str, Any], where: str) -> str:
    value = next((part[key] for key in (*_REASONING_PARTS, "text") if part.get(key) is not None), None)
    if isinstance(value, list):
        text, deeper = read_content(value, where)
        if deeper is not None:
            raise RowRefused(_NOT_TEXT, f"{where} holds reasoning again; write it as one text")
        return text
    return text_of(value, where, "reasoning is not a string")


def read_tool_content(content: Any, where: str) -> str:
    """Return the text of a tool's output: a string as it is, text parts joined, any other value as JSON.

    Raises:
        RowRefused: it is null, holds an image or another part that is no text, or what JSON cannot hold.
    """
    if isinstance(content, list) and content and all(_is_part(part) for part in content):
        text, reasoning = read_content(content, where)
        if reasoning is not None:
            raise RowRefused(_NOT_TEXT, f"{where} holds reasoning, which a tool does not write")
        return text
    if content is None or isinstance(content, str):
        return text_of(content, where, _NOT_STRING)
    check_encodable(content, where, _NOT_STRING)
    return json.dumps(content, ensure_ascii=False)


def _is_part(value: Any) -> bool:
    """Return whether an element of a list is a content part, and no record of the tool's own."""
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind in (*_TEXT_PARTS, *_REASONING_PARTS, *_MEDIA)
