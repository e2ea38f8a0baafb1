"""Questions to a judge behind any OpenAI-compatible address: in parallel, retried, cached, and counted.

The key comes from an environment variable and goes to that address alone: it is in no file, log or error
text. A reply is kept the moment it comes (`reply_cache`), so a run that is killed and started again pays for
nothing twice."""

import email.utils
import hashlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eval.judging_cost import CostEstimate, estimated_tokens, price_of
from eval.reply_cache import ReplyCache
from instruction_modelling.errors import UserError

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
# The longest that one back-off, and one wait that a server asks for, may take, in seconds.
LONGEST_BACKOFF, LONGEST_RETRY_AFTER = 60.0, 600.0
# A shorter "key" is a placeholder for a server without keys, and hiding it would spoil texts.
SHORTEST_KEY = 12


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
        """What is sent."""
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


@dataclass(frozen=True)
class ChatReply:
    """The answer to the request of that key.

    `logprobs` is the choice's, as the service sends it; `usage` holds `prompt_tokens` and
    `completion_tokens`. Where `error` is not None there was no answer, and it says why; `refused` tells a
    request that the service will not take (too long, filtered) from one that it did not get to."""

    key: str
    text: str
    logprobs: dict[str, Any] | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    refused: bool = False
    cached: bool = False


@dataclass
class Usage:
    """What was used: `requests` were paid, `cached` were not, `failed` brought nothing; tokens as the service
    counts them."""

    requests: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0


class _Trouble(Exception):
    """An attempt brought nothing but the next may; `wait` is what the server asks for, in seconds."""

    def __init__(self, what: str, wait: float | None = None):
        super().__init__(what)
        self.wait = wait


class _Refused(Exception):
    """The service will not take this request."""


def is_local(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a `Retry-After` header asks for, given as seconds or as a date."""
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


class ChatClient:
    """Asks one model at one address; to be closed, or used as a context.

    Args:
        base_url: the address up to `/v1`; None takes OPENAI_BASE_URL, else OpenAI's own.
        model: the judge's name there.
        key_variable: the environment variable that holds the key; a server on this machine needs none.
        parallel: requests under way at a time.
        timeout: seconds without a byte after which an attempt has failed.
        max_tries: attempts for one request before it is given up.
        cache: JSONL file of replies, None for none; one process at a time.
        backoff: seconds before the second attempt; it doubles with each, up to a minute, less a random part.
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        parallel: int = 8,
        timeout: float = 120.0,
        max_tries: int = 8,
        cache: Path | None = None,
        backoff: float = 1.0,
    ):
        """Raises:
        UserError: the address is none, the key is missing, or the cache cannot be used.
        """
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")
        self.model, self.parallel, self.timeout, self.max_tries = model, parallel, timeout, max_tries
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
        self._backoff = backoff
        self._cache = ReplyCache(cache)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._not_before, self._given_up = 0.0, 0
        self.usage = Usage()
        self._service: Any = None

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the connections and the cache's file."""
        if self._service is not None:
            self._service.close()
            self._service = None
        self._cache.close()

    # -- before asking ----------------------------------------------------------------------------------------

    def _digest(self, request: ChatRequest) -> str:
        # A local server's port changes from start to start; another service's answers are another judge's.
        service = "local" if self.local else urlsplit(self.base_url).netloc
        whole = {"service": service, "attempt": request.attempt, **request.body(self.model)}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def estimate(
        self,
        requests: Sequence[ChatRequest],
        per_million_input: float | None = None,
        per_million_output: float | None = None,
        reply_tokens: int = 1024,
    ) -> CostEstimate:
        """What the requests that are not in the cache will cost; a reply without `max_tokens` counts as
        `reply_tokens`."""
        fresh = {self._digest(request): request for request in requests}
        fresh = {digest: request for digest, request in fresh.items() if self._cache.get(digest) is None}
        return CostEstimate(
            model=self.model,
            requests=len(fresh),
            cached=len(requests) - len(fresh),
            prompt_tokens=sum(estimated_tokens(request.messages) for request in fresh.values()),
            reply_tokens=sum(request.max_tokens or reply_tokens for request in fresh.values()),
            price=price_of(self.model, self.local, per_million_input, per_million_output),
        )

    # -- asking -----------------------------------------------------------------------------------------------

    def ask(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        """The replies, as they come: one for each request, those of the cache first. Equal requests are sent
        once.

        When the iteration ends early, no further request is sent, and the replies to those under way are
        kept.

        Raises:
            UserError: the service takes no request at all (wrong key, no such model, no money left).
        """
        waiting: dict[str, list[ChatRequest]] = {}
        for request in requests:
            digest = self._digest(request)
            kept = self._cache.get(digest)
            if kept is not None:
                self.usage.cached += 1
                yield self._reply(request, kept, cached=True)
            else:
                waiting.setdefault(digest, []).append(request)
        if not waiting:
            return
        self._open()
        self._stop.clear()
        self._given_up = 0
        pool = ThreadPoolExecutor(max_workers=self.parallel, thread_name_prefix="judge")
        try:
            under_way: dict[Future[ChatReply], list[ChatRequest]] = {
                pool.submit(self._answer, digest, same[0]): same for digest, same in waiting.items()
            }
            for future in as_completed(under_way):
                reply = future.result()
                for request in under_way[future]:
                    yield ChatReply(**{**vars(reply), "key": request.key})
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self) -> None:
        """Connects; the package is heavy, so it is imported here."""
        if self._service is not None:
            return
        import openai

        # A proxy of the environment is not for a server on this machine.
        http = openai.DefaultHttpxClient(trust_env=not self.local)
        self._service = openai.OpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            timeout=self.timeout,
            max_retries=0,
            http_client=http,
        )

    def _reply(self, request: ChatRequest, kept: Mapping[str, Any], cached: bool) -> ChatReply:
        return ChatReply(
            key=request.key,
            text=kept["text"],
            logprobs=kept.get("logprobs"),
            usage=dict(kept.get("usage") or {}),
            cached=cached,
        )

    def _answer(self, digest: str, request: ChatRequest) -> ChatReply:
        """Tries until there is a reply or `max_tries` are over; in a thread of its own."""
        last = "the judge does not answer"
        for number in range(self.max_tries):
            if self._stop.wait(max(0.0, self._not_before - time.monotonic())):
                return self._failure(request, "not asked: the run was stopped")
            if self._given_up >= max(2, self.parallel):
                return self._failure(request, "not asked: the judge has answered none of the requests before")
            try:
                kept = self._once(request)
            except _Refused as refused:
                with self._lock:
                    self._given_up = 0
                return self._failure(request, str(refused), refused=True)
            except _Trouble as trouble:
                last = str(trouble)
                if number + 1 < self.max_tries:
                    self._wait(number, trouble.wait, last)
                continue
            # What a service repeats of the key must not get into a file with its reply.
            kept["text"] = self._hidden(kept["text"])
            self._cache.put(digest, kept, hide=self._secret())
            with self._lock:
                self._given_up = 0
                self.usage.requests += 1
                self.usage.prompt_tokens += kept["usage"].get("prompt_tokens", 0)
                self.usage.reply_tokens += kept["usage"].get("completion_tokens", 0)
            return self._reply(request, kept, cached=False)
        with self._lock:
            self._given_up += 1
        return self._failure(request, f"given up after {self.max_tries} tries; the last: {last}")

    def _failure(self, request: ChatRequest, why: str, refused: bool = False) -> ChatReply:
        with self._lock:
            self.usage.failed += 1
        return ChatReply(key=request.key, text="", error=why, refused=refused)

    def _wait(self, number: int, asked: float | None, why: str) -> None:
        seconds = min(LONGEST_BACKOFF, self._backoff * 2**number) * random.uniform(0.5, 1.0)
        if asked is not None:
            seconds = max(seconds, min(asked, LONGEST_RETRY_AFTER))
            # The server's word is for all requests, not for this one alone.
            self._not_before = max(self._not_before, time.monotonic() + seconds)
        logger.info(
            "judge %s: %s; again in %.1f s (try %d of %d)",
            self.model,
            why,
            seconds,
            number + 2,
            self.max_tries,
        )
        self._stop.wait(seconds)

    def _once(self, request: ChatRequest) -> dict[str, Any]:
        """One attempt: the reply as it is kept.

        Raises:
            _Trouble: it brought nothing; the next may.
            _Refused: the service does not take this request.
            UserError: the service takes no request.
        """
        import openai

        try:
            raw = self._service.chat.completions.with_raw_response.create(**request.body(self.model))
            return _reply_of(json.loads(raw.text))
        except openai.APIStatusError as error:
            self._judge_status(error)
            raise AssertionError from error
        except openai.APITimeoutError:
            raise _Trouble(f"no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _Trouble(
                f"the connection failed ({self._hidden(f'{type(cause).__name__}: {cause}')})"
            ) from None
        except UnicodeEncodeError:
            raise _Refused(
                "not sent: the text holds half of a surrogate pair, which UTF-8 cannot hold"
            ) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _Trouble(f"the answer is not a chat completion ({type(error).__name__})") from None

    def _judge_status(self, error: Any) -> None:
        """Raises what a status other than 200 means."""
        code, what = error.status_code, self._hidden(str(error.message))[:300]
        if error.code == "insufficient_quota":
            raise UserError(f"the judge's service says that the account has no money left: {what}")
        if code in (408, 409, 425, 429) or code >= 500:
            raise _Trouble(f"status {code}", _retry_after(error.response.headers))
        if code == 401:
            raise UserError(
                f"the judge's service does not take the key in the environment variable {self._key_variable} "
                "(status 401)"
            )
        if code in (403, 404):
            raise UserError(
                f"the judge's service does not give {self.model} (status {code}): {what}. Check "
                "--judge_model and "
                "--judge_base_url"
            )
        raise _Refused(f"refused with status {code}: {what}")

    def _secret(self) -> str:
        return self._key if len(self._key) >= SHORTEST_KEY else ""

    def _hidden(self, text: str) -> str:
        secret = self._secret()
        return text.replace(secret, "***") if secret else text


def _reply_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a chat completion; raises KeyError, TypeError or IndexError where it is none."""
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
