"""Questions to a judge behind any OpenAI-compatible address: in parallel, retried, cached, and counted.

A reply is kept the moment it comes (`reply_cache`), so a run that is killed and started again pays for
nothing twice."""

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.chat_service import ChatRequest, ChatService, Refused, Trouble
from eval.judging_cost import CostEstimate, estimated_tokens, price_of
from eval.reply_cache import ReplyCache

if TYPE_CHECKING:
    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

# The longest that one back-off, and one wait that a server asks for, may take, in seconds.
LONGEST_BACKOFF, LONGEST_RETRY_AFTER = 60.0, 600.0


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


@dataclass(frozen=True)
class CallLimits:
    """How a service is asked.

    Args:
        parallel: requests under way at a time.
        timeout: seconds without a byte after which an attempt has failed.
        max_tries: attempts for one request before it is given up.
        backoff: seconds before the second attempt; it doubles with each, up to a minute, less a random part.
    """

    parallel: int = 8
    timeout: float = 120.0
    max_tries: int = 8
    backoff: float = 1.0


class _NotAsked(Exception):
    """A request was not sent, and why."""


class ChatClient:
    """Asks one model at one address; to be closed, or used as a context.

    Args:
        base_url: the address up to `/v1`; None takes OPENAI_BASE_URL, else OpenAI's own.
        model: the judge's name there.
        key_variable: the environment variable that holds the key; a server on this machine needs none.
        cache: JSONL file of replies, None for none; one process at a time.
        limits: how it is asked.

    Raises:
        UserError: the address is none, the key is missing, or the cache cannot be used.
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        cache: Path | None = None,
        limits: CallLimits | None = None,
    ):
        self.limits = limits or CallLimits()
        self.model = model
        self._service = ChatService(base_url, model, key_variable, self.limits.timeout)
        self._cache = ReplyCache(cache)
        self._stop, self._mutex = threading.Event(), threading.Lock()
        self._not_before, self._given_up = 0.0, 0
        self.usage = Usage()

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections and the cache's file."""
        self._service.close()
        self._cache.close()

    @property
    def local(self) -> bool:
        """Return whether the judge is on this machine."""
        return self._service.local

    @property
    def service_name(self) -> str:
        """Return the service's name for the results: `local`, or its host."""
        return self._service.name

    # -- before asking ------------------------------------------------------------

    def _digest(self, request: ChatRequest) -> str:
        # A local server's port changes from start to start; another service's answers are another judge's.
        whole = {"service": self._service.name, "attempt": request.attempt, **request.body(self.model)}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def estimate(
        self,
        requests: Sequence[ChatRequest],
        per_million_input: float | None = None,
        per_million_output: float | None = None,
        reply_tokens: int = 1024,
    ) -> CostEstimate:
        """Return what the requests that are not in the cache will cost.

        A reply without `max_tokens` counts as `reply_tokens`; prices are dollars for a million tokens."""
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

    # -- asking ------------------------------------------------------------

    def ask(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        """Yield the replies, as they come: one for each request, those of the cache first.

        Equal requests are sent once. When the iteration ends early, no further request is sent, and the
        replies to those under way are kept.

        Raises:
            UserError: the service takes no request at all (wrong key, no such model, no money left).
        """
        waiting: dict[str, list[ChatRequest]] = {}
        for request in requests:
            digest = self._digest(request)
            kept = self._cache.get(digest)
            if kept is not None:
                self.usage.cached += 1
                yield _chat_reply(request, kept, cached=True)
            else:
                waiting.setdefault(digest, []).append(request)
        if not waiting:
            return
        self._service.open()
        self._stop.clear()
        self._given_up = 0
        pool = ThreadPoolExecutor(max_workers=self.limits.parallel, thread_name_prefix="judge")
        try:
            under_way: dict[Future[ChatReply], list[ChatRequest]] = {
                pool.submit(self._answer, digest, equal[0]): equal for digest, equal in waiting.items()
            }
            for future in as_completed(under_way):
                reply = future.result()
                for request in under_way[future]:
                    yield replace(reply, key=request.key)
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, digest: str, request: ChatRequest) -> ChatReply:
        """Try until there is a reply or `max_tries` are over; in a thread of its own."""
        import tenacity

        # tenacity itself and not stamina, which stands on it: the event ends a wait when the run is stopped.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Trouble),
            stop=tenacity.stop_after_attempt(self.limits.max_tries),
            wait=self._pause,
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=self._log_pause,
        )
        try:
            reply = retrying(self._attempt, request)
        except _NotAsked as reason:
            return self._failure(request, f"not asked: {reason}")
        except Refused as refused:
            with self._mutex:
                self._given_up = 0
            return self._failure(request, str(refused), refused=True)
        except tenacity.RetryError as error:
            with self._mutex:
                self._given_up += 1
            last = error.last_attempt.exception()
            return self._failure(request, f"given up after {self.limits.max_tries} tries; the last: {last}")
        self._cache.put(digest, reply, hide=self._service.secret)
        with self._mutex:
            self._given_up = 0
            self.usage.requests += 1
            self.usage.prompt_tokens += reply["usage"].get("prompt_tokens", 0)
            self.usage.reply_tokens += reply["usage"].get("completion_tokens", 0)
        return _chat_reply(request, reply, cached=False)

    def _attempt(self, request: ChatRequest) -> dict[str, Any]:
        if self._stop.wait(max(0.0, self._not_before - time.monotonic())):
            raise _NotAsked("the run was stopped")
        if self._given_up >= max(2, self.limits.parallel):
            raise _NotAsked("the judge has answered none of the requests before")
        return self._service.ask_once(request)

    def _pause(self, state: "RetryCallState") -> float:
        """Return the seconds before the next attempt; what a server asks for holds for all requests."""
        doubled = self.limits.backoff * 2 ** (state.attempt_number - 1)
        seconds = min(LONGEST_BACKOFF, doubled) * random.uniform(0.5, 1.0)
        trouble = state.outcome.exception() if state.outcome else None
        if isinstance(trouble, Trouble) and trouble.retry_after is not None:
            seconds = max(seconds, min(trouble.retry_after, LONGEST_RETRY_AFTER))
            self._not_before = max(self._not_before, time.monotonic() + seconds)
        return seconds

    def _log_pause(self, state: "RetryCallState") -> None:
        logger.info(
            "judge %s: %s; again in %.1f s (try %d of %d)",
            self.model,
            state.outcome.exception() if state.outcome else "",
            state.upcoming_sleep,
            state.attempt_number + 1,
            self.limits.max_tries,
        )

    def _failure(self, request: ChatRequest, reason: str, refused: bool = False) -> ChatReply:
        with self._mutex:
            self.usage.failed += 1
        return ChatReply(key=request.key, text="", error=reason, refused=refused)


def _chat_reply(request: ChatRequest, kept: Mapping[str, Any], cached: bool) -> ChatReply:
    return ChatReply(
        key=request.key,
        text=kept["text"],
        logprobs=kept.get("logprobs"),
        usage=dict(kept.get("usage") or {}),
        cached=cached,
    )
