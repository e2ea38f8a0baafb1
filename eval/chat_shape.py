"""The form in which a service takes requests, learnt from its own refusals."""

import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from instruction_modelling.errors import UserError

logger = logging.getLogger(__name__)

_UNSUPPORTED = re.compile(
    r"unsupported|(not|n't|only) support|does not take|unrecogni[sz]ed|unknown|unexpected|not permitted"
    r"|not allowed|extra inputs|instead|deprecated|only the default|only 1|may only|must be 1"
    r"|invalid|not a valid",
    re.IGNORECASE,
)
# A reply that is too long is refused in words that name the same fields.
_TOO_LONG = re.compile(r"context length|context window|too large|too long|at most", re.IGNORECASE)
_STREAM_ONLY = re.compile(
    r"\bstream\b.*\b(only|must|required|enable|true)\b|\b(only|must|require[sd]?|enable)\b.*\bstream", re.I
)


class RequestShape:
    """What is changed in every body because the service takes it so; for several threads.

    Args:
        fixed: fields that must be sent as they are, each with the flag that set it.
        noun: who is asked, for messages.
    """

    def __init__(self, fixed: Mapping[str, str], noun: str):
        self._fixed, self._noun, self._mutex = fixed, noun, threading.Lock()
        self._renamed: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._stream = False

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body in the service's form."""
        sent = {
            self._renamed.get(name, name): value for name, value in body.items() if name not in self._left_out
        }
        if self._stream:
            sent["stream"] = True
            if "stream_options" not in self._left_out:
                sent["stream_options"] = {"include_usage": True}
        return sent

    def stream(self) -> None:
        """Take replies in pieces from now on."""
        with self._mutex:
            if not self._stream:
                self._stream = True
                self._say("gives its replies as a stream alone: they are taken so")

    def learn(self, whole: Mapping[str, Any], sent: Mapping[str, Any], said: str, field: str | None) -> bool:
        """Return whether the service's words lead to another body than the one it refused.

        Args:
            whole: the body as it was meant.
            sent: the body that was refused.
            said: the service's words.
            field: the field that it names, if it names one.

        Raises:
            UserError: it does not take a field that a flag has set.
        """
        with self._mutex:
            unsupported = _UNSUPPORTED.search(said) and not _TOO_LONG.search(said)

            def named(name: str) -> bool:
                words = re.search(rf"(?<![a-z_]){name}(?![a-z_])", said)
                return name in sent and bool(field == name or words)

            if unsupported and named("max_tokens") and "max_tokens" not in self._renamed:
                self._renamed["max_tokens"] = "max_completion_tokens"
                self._say('takes no "max_tokens": "max_completion_tokens" is sent instead')
            elif unsupported and named("stream_options"):
                self._left_out.add("stream_options")
            elif unsupported and named("temperature") and "temperature" not in self._left_out:
                if "temperature" in self._fixed:
                    raise UserError(
                        f"the {self._noun}'s service does not take {self._fixed['temperature']}: {said}"
                    )
                self._left_out.add("temperature")
                self._say(
                    f'takes no "temperature" of {sent["temperature"]:g}: none is sent, and its own default '
                    "holds"
                )
            elif not self._stream and _STREAM_ONLY.search(said):
                self._stream = True
                self._say("gives its replies as a stream alone: they are taken so")
            # Another thread may have learnt it meanwhile.
            return self.applied(whole) != sent

    def changes(self) -> list[str]:
        """Return what is changed, in words, for the results."""
        words = [f"{name} sent as {other}" for name, other in self._renamed.items()]
        words += [f"{name} left out" for name in sorted(self._left_out)]
        return words + ["replies as a stream"] * self._stream

    def _say(self, what: str) -> None:
        logger.info("the %s's service %s", self._noun, what)
