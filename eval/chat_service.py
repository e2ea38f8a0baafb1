"""A model behind an OpenAI-compatible address: one request, and its reply or why there is none.

The key comes from an environment variable and goes to that address alone: it is in no file, log or error
text."""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from eval.chat_errors import JUDGE, Asked, Refused, Trouble, error_within, status_meaning, words_of
from eval.chat_replies import reply_of
from eval.chat_shape import RequestShape
from instruction_modelling.errors import UserError

OPENAI_URL = "https://api.openai.com/v1"
# A shorter "key" is a placeholder for a server without keys, and hiding it would spoil texts.
SHORTEST_KEY = 12
# What follows the address that is asked for, and is often copied with it.
ENDPOINT = "/chat/completions"
# Parameters of an address that hold a key.
KEY_PARAMETERS = ("key", "api_key", "api-key", "apikey", "token", "access_token", "code", "subscription-key")

# How many times the seconds of silence that are allowed an answer may take as a whole.
WHOLE_ANSWER = 10

# What reading an answer of another shape raises, here or in the client.
_NO_COMPLETION = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)


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


def _bounded(seconds: float) -> Callable[[Any], None]:
    """Return what breaks an answer of the HTTP client off where it is not whole after so many seconds: a byte
    now and then, which is no silence, would keep a request for ever."""
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream, self._end = stream, time.monotonic() + seconds

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._stream:
                if time.monotonic() > self._end:
                    raise httpx2.ReadTimeout(f"no whole answer within {seconds:g} s")
                yield piece

        def close(self) -> None:
            self._stream.close()

    def bound(response: Any) -> None:
        response.stream = Bounded(response.stream)

    return bound


def is_local(url: str) -> bool:
    """Return whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


class ChatService:
    """One model at one address; to be closed.

    Args:
        base_url: the address up to `/v1`, with a query where the service needs one (Azure's api-version);
            None takes OPENAI_BASE_URL, else OpenAI's own.
        model: its name there.
        key_variable: the environment variable that holds the key; a server on this machine needs none.
        timeout: seconds without a byte after which an attempt has failed; so it has after ten times as many
            without the whole answer.
        asked: who is asked, for messages.
        fixed: fields of the body that must be sent as they are or not at all, each with the flag that set it.

    Raises:
        UserError: the address is none, or the key is missing or none.
    """

    def __init__(  # noqa: PLR0913 (what makes a service)
        self,
        base_url: str | None,
        model: str,
        key_variable: str,
        timeout: float,
        asked: Asked = JUDGE,
        fixed: Mapping[str, str] | None = None,
    ):
        address = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip()
        self.model, self.timeout, self.asked = model, timeout, asked
        self._key_variable = key_variable
        self.base_url, self._query = self._parts(address)
        self.local = is_local(self.base_url)
        self._key = self._key_of_environment()
        self.shape = RequestShape(fixed or {}, asked.noun)
        self._client: Any = None

    def _parts(self, address: str) -> tuple[str, dict[str, str]]:
        """Return an address without its query, and the query."""
        noun = self.asked.noun
        try:
            parts = urlsplit(address)
            host = parts.hostname
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            raise UserError(
                f"the {noun}'s address must look like https://api.openai.com/v1 or http://127.0.0.1:8000/v1"
            )
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        secret = [name for name in query if name.lower() in KEY_PARAMETERS]
        if parts.username or parts.password or secret:
            what = f'a key ("{secret[0]}")' if secret else "a name or password"
            raise UserError(
                f"the {noun}'s address holds {what}; give the key in the environment variable "
                f"{self._key_variable} instead"
            )
        path = parts.path.rstrip("/").removesuffix(ENDPOINT)
        return urlunsplit((parts.scheme, parts.netloc, path, "", "")), query

    def _key_of_environment(self) -> str:
        key = os.environ.get(self._key_variable, "").strip()
        if not key and not self.local:
            raise UserError(
                f"the environment variable {self._key_variable} is not set; put the key of "
                f"{urlsplit(self.base_url).hostname} there (it is read from nowhere else; any word does for "
                "a server that asks for none)"
            )
        if not key.isascii() or not key.isprintable():
            raise UserError(
                f"the environment variable {self._key_variable} holds characters that no key has (a line "
                "break, or a letter beyond ASCII); set it anew"
            )
        return key

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

        # The client warns of pieces of a stream that are not as they should be, with their contents.
        warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
        # Azure's addresses name a version, and take the key in a header of their own.
        azure = "api-version" in self._query
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            timeout=self.timeout,
            max_retries=0,
            default_query=self._query,
            default_headers={"api-key": self._key or "none"} if azure else None,
            # A proxy of the environment is not for a server on this machine. A redirect would take the key
            # elsewhere.
            http_client=openai.DefaultHttpxClient(
                trust_env=not self.local,
                follow_redirects=False,
                event_hooks={"response": [_bounded(WHOLE_ANSWER * self.timeout)]},
            ),
        )

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask_once(self, request: ChatRequest) -> dict[str, Any]:
        """Send a request and return its reply: text, logprobs, finish_reason, usage, and what was sent in
        another form (JSON values).

        Where the service says that it takes a field of the body under another name, or not at all, the
        request is sent again as it wants it, and so are all later ones.

        Raises:
            Trouble: the attempt brought nothing; the next may.
            Refused: the service does not take this request.
            UserError: the service takes no request at all (wrong key, no such model, no money left).
        """
        import openai

        try:
            return self._reply(request.body(self.model))
        except openai.APITimeoutError as error:
            late, silent = str(error.__cause__), f"no answer within {self.timeout:g} s"
            raise Trouble(late if late.startswith("no whole answer") else silent) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise Trouble(
                f"the connection failed ({self.hidden(f'{type(cause).__name__}: {cause}')})"
            ) from None
        except openai.APIError as error:
            # Said in the middle of a stream.
            raise error_within({"error": json.loads(self.hidden(json.dumps(error.body)))}) or Trouble(
                self.hidden(str(error.message))
            ) from None
        except UnicodeEncodeError:
            raise Refused(
                "not sent: the text holds half of a surrogate pair, which UTF-8 cannot hold"
            ) from None
        except openai.OpenAIError as error:
            raise Trouble(f"the answer is not a chat completion ({self.hidden(str(error))})") from None
        except _NO_COMPLETION as error:
            raise Trouble(f"the answer is not a chat completion ({type(error).__name__})") from None

    def _reply(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to a body, sent in the form that the service takes."""
        import openai

        while True:
            body = self.shape.applied(whole)
            try:
                answer = self._streamed(body) if body.get("stream") else self._whole(body)
            except openai.APIStatusError as error:
                said = self.hidden(words_of(error.body if error.body else error.message))
                if error.status_code in (400, 422) and self.shape.learn(whole, body, said, error.param):
                    continue
                raise status_meaning(error, self.hidden, self._key_variable, self.asked) from None
            if answer is not None:
                changes = self.shape.changes()
                return {**reply_of(answer), **({"service_changes": changes} if changes else {})}

    def _sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for the client: fields that it does not know are sent like the others."""
        known = ("model", "messages", "stream")
        further = {name: value for name, value in body.items() if name not in known}
        return {**{name: body[name] for name in known if name in body}, "extra_body": further}

    def _whole(self, body: Mapping[str, Any]) -> Any:
        """Return the JSON value of an answer that comes at once; None where it came as a stream unasked."""
        raw = self._client.chat.completions.with_raw_response.create(**self._sent(body))
        if raw.headers.get("content-type", "").startswith("text/event-stream"):
            self.shape.stream()
            return None
        answer = json.loads(self.hidden(raw.text))
        # The answer "null" holds nothing, and is no stream: asked again as one, it would be asked for ever.
        return {} if answer is None else answer

    def _streamed(self, body: Mapping[str, Any]) -> Any:
        """Return the JSON value of an answer that comes in pieces, put together."""
        from openai.lib.streaming.chat import ChatCompletionStreamState

        state, ended = ChatCompletionStreamState(), False
        with self._client.chat.completions.create(**self._sent(body)) as pieces:
            for piece in pieces:
                state.handle_chunk(piece)
                ended = ended or any(choice.finish_reason for choice in piece.choices or ())
        if not ended:
            raise Trouble("the answer ended in the middle of its stream")
        return json.loads(self.hidden(state.current_completion_snapshot.to_json()))
