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

from eval.chat_errors import JUDGE, Asked, Refused, Trouble
from eval.chat_replies import finite
from eval.chat_service import ChatRequest, ChatService
from eval.judging_cost import CostEstimate, estimated_tokens, price_of
from eval.reply_cache import ReplyCache
from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

# The attempts at a request whose answer shows a fault that is likely the question's own (no message in it).
MOST_TRIES_OF_ITS_OWN = 3
# So many requests refused in a row (or two rounds, if more are under way) as a service refuses that does not
# give the model: a question or two of one topic, in both turns and orders, are fewer.
REFUSED_BY_ALL = 10
# So many requests given up in a row end a run.
GIVEN_UP_BY_ALL = 5
# The longest that one back-off, and one wait that a server asks for, may take, in seconds.
LONGEST_BACKOFF, LONGEST_RETRY_AFTER = 60.0, 600.0


@dataclass(frozen=True)
class ChatReply:
    """The answer to the request of that key.

    `logprobs` is the choice's, as the service sends it, without numbers that JSON cannot hold; `usage` holds
    `prompt_tokens` and `completion_tokens`; `finish_reason` says why the text ends, None where the service
    does not. Where `error` is not None there was no answer, and it says why: `refused` by the service (too
    long, filtered), given up, or never `asked`."""

    key: str
    text: str
    logprobs: dict[str, Any] | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    refused: bool = False
    cached: bool = False
    finish_reason: str | None = None
    asked: bool = True

    @property
    def reached(self) -> bool:
        """Return whether the service said anything: an answer, or that it refuses."""
        return self.error is None or self.refused


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
        timeout: seconds without a byte after which an attempt has failed; so it has after ten times as many
            without the whole answer.
        max_tries: attempts for one request before it is given up.
        backoff: seconds before the second attempt; it doubles with each, up to a minute, less a random part.
        ask_refused_again: whether what the service refused in an earlier run is asked again.
    """

    parallel: int = 8
    timeout: float = 120.0
    max_tries: int = 8
    backoff: float = 1.0
    ask_refused_again: bool = False


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
        changes: fields of every request that are other than the caller makes them, each a value and the flag
            that set it.
        asked: who is asked, for messages.

    Raises:
        UserError: the address is none, the key is missing, or the cache cannot be used.
    """

    def __init__(  # noqa: PLR0913 (what makes a client)
        self,
        base_url: str | None,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        cache: Path | None = None,
        limits: CallLimits | None = None,
        changes: Mapping[str, tuple[Any, str]] | None = None,
        asked: Asked = JUDGE,
    ):
        self.limits = limits or CallLimits()
        self.model, self.asked = model, asked
        self._changes = {name: value for name, (value, _) in (changes or {}).items()}
        fixed = {name: flag for name, (_, flag) in (changes or {}).items()}
        self._service = ChatService(base_url, model, key_variable, self.limits.timeout, asked, fixed)
        self._cache = ReplyCache(cache)
        self._stop, self._mutex = threading.Event(), threading.Lock()
        self._not_before, self._given_up = 0.0, 0
        # Refusals since the service last answered: kept once it answers again, since then they were of these
        # questions and not of all.
        self._refusals: dict[str, str] = {}
        self._refused_by_all, self._answered = 0, False
        self._service_changes: set[str] = set()
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

    @property
    def service_changes(self) -> list[str]:
        """Return in which form the requests of the replies so far were sent, other than they were made, in
        words."""
        return sorted(self._service_changes)

    def hidden(self, text: str) -> str:
        """Return a text with the key starred out."""
        return self._service.hidden(text)

    def changed(self, request: ChatRequest) -> ChatRequest:
        """Return a request as it is asked: with this client's changes."""
        return replace(request, **self._changes)

    # -- before asking ------------------------------------------------------------

    def _digest(self, request: ChatRequest) -> str:
        # A local server's port changes from start to start; another service's answers are another judge's.
        whole = {"service": self._service.name, "attempt": request.attempt, **request.body(self.model)}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def _kept(self, digest: str) -> dict[str, Any] | None:
        """Return what an earlier run got for a request: a reply or a refusal; None where it is to be
        asked."""
        kept = self._cache.get(digest)
        return None if kept and "refused" in kept and self.limits.ask_refused_again else kept

    def estimate(
        self,
        requests: Sequence[ChatRequest],
        per_million_input: float | None = None,
        per_million_output: float | None = None,
        reply_tokens: int = 1024,
    ) -> CostEstimate:
        """Return what the requests that are not in the cache will cost.

        A reply without `max_tokens` counts as `reply_tokens`; prices are dollars for a million tokens."""
        asked = [self.changed(request) for request in requests]
        fresh = {self._digest(request): request for request in asked}
        fresh = {digest: request for digest, request in fresh.items() if self._kept(digest) is None}
        return CostEstimate(
            model=self.model,
            requests=len(fresh),
            cached=len(requests) - len(fresh),
            prompt_tokens=sum(estimated_tokens(request.messages) for request in fresh.values()),
            reply_tokens=sum(request.max_tokens or reply_tokens for request in fresh.values()),
            price=price_of(self.model, self.local, per_million_input, per_million_output),
            noun=self.asked.noun,
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
        for request in map(self.changed, requests):
            digest = self._digest(request)
            kept = self._kept(digest)
            if kept is not None:
                self.usage.cached += 1
                self._service_changes.update(kept.get("service_changes") or ())
                yield _chat_reply(request, kept, cached=True)
            else:
                waiting.setdefault(digest, []).append(request)
        if not waiting:
            return
        self._service.open()
        self._stop.clear()
        self._given_up = self._refused_by_all = 0
        pool = ThreadPoolExecutor(max_workers=self.limits.parallel, thread_name_prefix="judge")
        try:
            under_way: dict[Future[ChatReply], list[ChatRequest]] = {
                pool.submit(self._answer, digest, equal[0]): equal for digest, equal in waiting.items()
            }
            for future in as_completed(under_way):
                reply = future.result()
                for request in under_way[future]:
                    yield replace(reply, key=request.key)
            if self._answered:
                self._keep_refusals()
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, digest: str, request: ChatRequest) -> ChatReply:
        """Try until there is a reply or `max_tries` are over; in a thread of its own."""
        import tenacity

        # tenacity itself and not stamina, which stands on it: the event ends a wait when the run is stopped.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Trouble),
            stop=self._enough,
            wait=self._pause,
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=self._log_pause,
        )
        try:
            reply = retrying(self._attempt, request)
        except _NotAsked as reason:
            return self._failure(request, f"not asked: {reason}", asked=False)
        except Refused as refused:
            return self._refusal(digest, request, refused)
        except tenacity.RetryError as error:
            last, tries = error.last_attempt.exception(), error.last_attempt.attempt_number
            reason_given = f"given up after {tries} tries; the last: {last}"
            if isinstance(last, Trouble) and last.own:
                return self._refusal(digest, request, Refused(reason_given), own_fault=True)
            with self._mutex:
                self._given_up += 1
            return self._failure(request, reason_given)
        self._cache.put(digest, reply, hide=self._service.secret)
        self._answered = True
        self._keep_refusals()
        with self._mutex:
            self._given_up = self._refused_by_all = 0
            self._service_changes.update(reply.get("service_changes") or ())
            self.usage.requests += 1
            self.usage.prompt_tokens += reply["usage"].get("prompt_tokens", 0)
            self.usage.reply_tokens += reply["usage"].get("completion_tokens", 0)
        return _chat_reply(request, reply, cached=False)

    def _refusal(
        self, digest: str, request: ChatRequest, refused: Refused, own_fault: bool = False
    ) -> ChatReply:
        """Return the reply of a refused request, to be kept once it is known that not all are refused.

        `own_fault`: it was not said to be refused, but its answers held nothing.

        Raises:
            UserError: all are.
        """
        with self._mutex:
            self._given_up = self._given_up + 1 if own_fault else 0
            self._refusals[digest] = str(refused)
            self._refused_by_all += refused.perhaps_all
            all_refused = self._refused_by_all >= max(REFUSED_BY_ALL, 2 * self.limits.parallel)
            if all_refused or (refused.at_once and not self._answered and not self.usage.cached):
                self._refusals.clear()
                raise UserError(
                    f"the {self.asked.noun}'s service does not give {self.model}: {refused}. Check "
                    f"{self.asked.model} and {self.asked.address}"
                )
        return self._failure(request, str(refused), refused=True)

    def _keep_refusals(self) -> None:
        with self._mutex:
            refusals, self._refusals = self._refusals, {}
        for digest, reason in refusals.items():
            self._cache.put(digest, {"text": "", "refused": reason}, hide=self._service.secret)

    def _enough(self, state: "RetryCallState") -> bool:
        """Return whether a request is given up."""
        trouble = state.outcome.exception() if state.outcome else None
        own = isinstance(trouble, Trouble) and trouble.own
        most = min(self.limits.max_tries, MOST_TRIES_OF_ITS_OWN) if own else self.limits.max_tries
        return state.attempt_number >= most

    def _attempt(self, request: ChatRequest) -> dict[str, Any]:
        if self._stop.wait(max(0.0, self._not_before - time.monotonic())):
            raise _NotAsked("the run was stopped")
        if self._given_up >= max(GIVEN_UP_BY_ALL, self.limits.parallel):
            raise _NotAsked(f"the {self.asked.noun} has answered none of the requests before")
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
            "%s %s: %s; again in %.1f s (try %d of at most %d)",
            self.asked.noun,
            self.model,
            state.outcome.exception() if state.outcome else "",
            state.upcoming_sleep,
            state.attempt_number + 1,
            self.limits.max_tries,
        )

    def _failure(
        self, request: ChatRequest, reason: str, refused: bool = False, asked: bool = True
    ) -> ChatReply:
        with self._mutex:
            self.usage.failed += 1
        return ChatReply(key=request.key, text="", error=reason, refused=refused, asked=asked)


def _chat_reply(request: ChatRequest, kept: Mapping[str, Any], cached: bool) -> ChatReply:
    return ChatReply(
        key=request.key,
        text=kept["text"],
        logprobs=finite(kept.get("logprobs")),
        usage=dict(kept.get("usage") or {}),
        error=kept.get("refused"),
        refused="refused" in kept,
        cached=cached,
        finish_reason=kept.get("finish_reason"),
    )
