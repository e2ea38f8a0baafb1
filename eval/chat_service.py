"""A model behind an OpenAI-compatible address: one request, and what its answer or its failure means.

The key comes from an environment variable and goes to that address alone: it is in no file, log or error
text."""

import email.utils
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from instruction_modelling.errors import UserError

OPENAI_URL = "https://api.openai.com/v1"
# A shorter "key" is a placeholder for a server without keys, and hiding it would spoil texts.
SHORTEST_KEY = 12
# Statuses after which the next attempt may bring a reply (timeout, conflict, too early, rate limit), as 5xx.
PASSING = (408, 409, 425, 429)


@dataclass(frozen=True)
class ChatRequest:
    """One question.

    `key` names it among the caller's; `attempt` tells the second asking of the same question from the first
    (it is not sent); `extra` are further fields of the body. None leaves a field to the server."""

    key: str
    messages: Sequence[Mapping[str, Any]]
    temperature: float | None = 0.0
    max_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0

    def body(self, model: str) -> dict[str, Any]:
        """Return what is sent to the model of that name."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [dict(message) for message in self.messages],
            **self.extra,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.logprobs:
            body.update(logprobs=True, top_logprobs=self.top_logprobs or 5)
        return body


class Trouble(Exception):
    """An attempt brought nothing but the next may.

    `retry_after` is how long the server asks to be left alone, in seconds; None where it does not say."""

    def __init__(self, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The service will not take this request."""


def is_local(url: str) -> bool:
    """Return whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


class ChatService:
    """One model at one address; to be closed.

    Args:
        base_url: the address up to `/v1`; None takes OPENAI_BASE_URL, else OpenAI's own.
        model: its name there.
        key_variable: the environment variable that holds the key; a server on this machine needs none.
        timeout: seconds without a byte after which an attempt has failed.

    Raises:
        UserError: the address is none, or the key is missing.
    """

    def __init__(self, base_url: str | None, model: str, key_variable: str, timeout: float):
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")
        self.model, self.timeout = model, timeout
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                "the judge's address must look like https://api.openai.com/v1 or http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password:
            raise UserError(
                f"the judge's address holds a name or password; give the key in the environment variable "
                f"{key_variable} instead"
            )
        self.local = is_local(self.base_url)
        self._key = os.environ.get(key_variable, "").strip()
        self._key_variable = key_variable
        if not self._key and not self.local:
            raise UserError(
                f"the environment variable {key_variable} is not set; put the key of {parts.hostname} there "
                "(it is read from nowhere else; any word does for a server that asks for none)"
            )
        self._client: Any = None

    @property
    def name(self) -> str:
        """Return the service's name: `local`, whatever the port, or its host, whose answers are its own."""
        return "local" if self.local else urlsplit(self.base_url).netloc

    @property
    def secret(self) -> str:
        """Return the text that must get into no file: the key, or nothing where it is a placeholder."""
        return self._key if len(self._key) >= SHORTEST_KEY else ""

    def hidden(self, text: str) -> str:
        """Return a text with the key, where a service repeats it, starred out."""
        return text.replace(self.secret, "***") if self.secret else text

    def open(self) -> None:
        """Connect to the service; a second call does nothing. The package is heavy, so it is imported
        here."""
        if self._client is not None:
            return
        import openai

        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            timeout=self.timeout,
            max_retries=0,
            # A proxy of the environment is not for a server on this machine.
            http_client=openai.DefaultHttpxClient(trust_env=not self.local),
        )

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask_once(self, request: ChatRequest) -> dict[str, Any]:
        """Send a request and return its reply: text, logprobs, finish_reason, usage (JSON values).

        Raises:
            Trouble: the attempt brought nothing; the next may.
            Refused: the service does not take this request.
            UserError: the service takes no request at all (wrong key, no such model, no money left).
        """
        import openai

        try:
            raw = self._client.chat.completions.with_raw_response.create(**request.body(self.model))
            reply = _reply_of(json.loads(raw.text))
        except openai.APIStatusError as error:
            raise self._meaning(error) from None
        except openai.APITimeoutError:
            raise Trouble(f"no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise Trouble(
                f"the connection failed ({self.hidden(f'{type(cause).__name__}: {cause}')})"
            ) from None
        except UnicodeEncodeError:
            raise Refused(
                "not sent: the text holds half of a surrogate pair, which UTF-8 cannot hold"
            ) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise Trouble(f"the answer is not a chat completion ({type(error).__name__})") from None
        return {**reply, "text": self.hidden(reply["text"])}

    def _meaning(self, error: Any) -> Exception:
        """Return what a status other than 200 means."""
        status, message = error.status_code, self.hidden(str(error.message))[:300]
        if error.code == "insufficient_quota":
            return UserError(f"the judge's service says that the account has no money left: {message}")
        if status in PASSING or status >= 500:
            return Trouble(f"status {status}", _retry_after(error.response.headers))
        if status == 401:
            return UserError(
                f"the judge's service does not take the key in the environment variable {self._key_variable} "
                "(status 401)"
            )
        if status in (403, 404):
            return UserError(
                f"the judge's service does not give {self.model} (status {status}): {message}. Check "
                "--judge_model and --judge_base_url"
            )
        return Refused(f"refused with status {status}: {message}")


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


def _reply_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a chat completion; KeyError, TypeError or IndexError where it is none."""
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if text is None:
        text = choice["message"].get("refusal") or ""
    if not isinstance(text, str):
        raise TypeError("the content is no text")
    usage = answer.get("usage") or {}
    return {
        "text": text,
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice.get("finish_reason"),
        "usage": {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")},
    }
