"""What is kept of a chat completion, in whichever of its shapes a service writes it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from eval.chat_errors import LONGEST_WORDS, Refused, Trouble, error_within
from instruction_modelling.rows.json_lines import snippet

# What services other than OpenAI's call the ends of a reply.
_FINISH_REASONS = {
    "max_tokens": "length",
    "model_length": "length",
    "max_length": "length",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "content_filtered": "content_filter",
    "content_filter: safety": "content_filter",
}


def reply_of(answer: Any) -> dict[str, Any]:
    """Return what is kept of an answer of status 200: text, logprobs, finish_reason, usage (JSON values).

    The text may be a string or a list of parts, of which thoughts are left out; where there is none it is
    "", or why the model refused.

    Raises:
        Trouble: it is no chat completion.
        Refused: the service says that it will not answer, or took the reply away.
    """
    if not isinstance(answer, Mapping):
        raise Trouble(f"the answer is not a chat completion but {snippet(answer)}")
    error = error_within(answer)
    if error is not None:
        raise error
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        words = json.dumps(answer, ensure_ascii=False)[:LONGEST_WORDS]
        raise Trouble(f"the answer holds no message: {words}", own=True)
    finish = choice.get("finish_reason")
    if isinstance(finish, str):
        finish = _FINISH_REASONS.get(finish.lower(), finish)
    text = _text_of(message.get("content")) or _text_of(message.get("refusal"))
    if not text and finish == "content_filter":
        details = choice.get("content_filter_results") or answer.get("prompt_filter_results")
        because = f": {json.dumps(details)[:LONGEST_WORDS]}" if details else ""
        raise Refused(f"the service filtered the reply (finish_reason content_filter){because}")
    logprobs = choice.get("logprobs")
    told = answer.get("usage")
    usage = told if isinstance(told, Mapping) else {}
    return {
        "text": text,
        "logprobs": finite(logprobs) if isinstance(logprobs, Mapping) else None,
        "finish_reason": finish,
        "usage": {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")},
    }


def _text_of(content: Any) -> str:
    """Return the text of a message's content: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise Trouble(f"the content of the answer is no text but {snippet(content)}", own=True)
    texts = [part if isinstance(part, str) else _text_of_part(part) for part in content]
    return "".join(texts)


def _text_of_part(part: Any) -> str:
    # A part of the type thinking or reasoning holds its text under other names.
    if not isinstance(part, Mapping) or part.get("type") not in (None, "text", "output_text", "refusal"):
        return ""
    text = part.get("text") or part.get("refusal")
    return text if isinstance(text, str) else ""


def finite(value: Any) -> Any:
    """Return a JSON value in which numbers that JSON cannot hold (an impossible token's -Infinity) are
    None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list) else value
