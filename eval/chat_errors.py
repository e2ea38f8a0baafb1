"""What it means when a chat service does not answer: trouble that passes, one request that it refuses, or a
service that answers nothing at all."""

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from instruction_modelling.errors import UserError

# Statuses after which the next attempt may bring a reply (timeout, conflict, too early, rate limit), as 5xx.
PASSING = (408, 409, 425, 429)
# Words of an error within an answer that no further attempt mends.
_LASTING = re.compile(
    r"polic|content_filter|moderat|safety|flagged|blocked|invalid_request|context_length|context length", re.I
)
# The longest of a service's own words that a message repeats, in characters.
LONGEST_WORDS = 500


class Trouble(Exception):
    """An attempt brought nothing but the next may.

    `retry_after` is how long the server asks to be left alone, in seconds; None where it does not say. `own`
    tells a fault that is likely this question's own, which few more attempts will mend, from one of the
    service or of the way to it."""

    def __init__(self, reason: str, retry_after: float | None = None, own: bool = False):
        super().__init__(reason)
        self.retry_after, self.own = retry_after, own


class Refused(Exception):
    """The service will not take this request.

    `perhaps_all` holds where the same words are said to every request by a service that does not give the
    model; `at_once` where they hardly mean anything else."""

    def __init__(self, reason: str, perhaps_all: bool = False, at_once: bool = False):
        super().__init__(reason)
        self.perhaps_all, self.at_once = perhaps_all, at_once


def words_of(error: Any) -> str:
    """Return what an error says, in the service's own words, of at most 500 characters.

    `error` is its JSON value: a text, or an object with `message` (or `detail`, `msg`, `error`)."""
    if isinstance(error, Mapping):
        for name in ("message", "detail", "msg", "error"):
            if error.get(name):
                return words_of(error[name])
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False, default=str)
    return " ".join(text.split())[:LONGEST_WORDS]


def error_within(answer: Mapping[str, Any]) -> Exception | None:
    """Return what an answer of status 200 says went wrong, `Refused` or `Trouble`; None where it says
    nothing of the kind."""
    error = answer.get("error")
    if not error and answer.get("object") == "error":
        error = answer
    choices = answer.get("choices")
    if not choices and not error:
        error = answer.get("detail")
    if not error and isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        error = choices[0].get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else None
    reason = f"the service answered with an error: {words_of(error)}"
    kind = f"{code} {error.get('type')}" if isinstance(error, Mapping) else ""
    if status in PASSING or "rate_limit" in kind:
        return Trouble(reason)
    lasting = _LASTING.search(f"{kind} {reason}")
    if (status is None or 500 <= status < 600) and not lasting:
        return Trouble(reason, own=True)
    return Refused(reason)


def status_meaning(error: Any, hidden: Any, key_variable: str, asked: "Asked") -> Exception:
    """Return what a status other than 200 means: `Trouble`, `Refused`, or `UserError` where no further
    request can succeed.

    Args:
        error: the client's APIStatusError.
        hidden: takes the key out of a text.
        key_variable: the environment variable that holds the key.
        asked: who was asked, for the words.
    """
    status, said = error.status_code, hidden(words_of(error.body if error.body else error.message))
    if error.code == "insufficient_quota" or status == 402:
        return UserError(f"the {asked.noun}'s service says that the account has no money left: {said}")
    if status in PASSING or status >= 500:
        return Trouble(f"status {status}: {said}", _retry_after(error.response.headers))
    if status == 401:
        return UserError(
            f"the {asked.noun}'s service does not take the key in the environment variable {key_variable} "
            "(status 401)"
        )
    if 300 <= status < 400:
        target = hidden(str(error.response.headers.get("location")))
        return UserError(
            f"the {asked.noun}'s service answers with a redirect to {target} (status {status}), "
            f"where the key is not sent; give the address that it means with {asked.address}"
        )
    return Refused(
        f"refused with status {status}: {said}", perhaps_all=status in (403, 404), at_once=status == 404
    )


class Asked:
    """Who is asked, in words for messages: a judge, or a model that is evaluated.

    Args:
        noun: `judge` or `model`.
        model: the flag that names it.
        address: what names its address.
    """

    def __init__(self, noun: str, model: str, address: str):
        self.noun, self.model, self.address = noun, model, address


JUDGE = Asked("judge", "--judge_model", "--judge_base_url")
EVALUATED = Asked("model", "--openai_engine", "the environment variable OPENAI_BASE_URL")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as seconds or as a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
