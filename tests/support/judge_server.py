"""A scripted judge: an OpenAI-compatible server on the loopback that answers, and misbehaves, as it is told.

with JudgeServer(lambda body, count: "[[7]]") as server:
    ChatClient(server.url, "judge")
"""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    """What to answer.

    Args:
        text: the content.
        logprobs: the choice's, as the service would send it; see `verdict_logprobs`.
        status: of HTTP; other than 200, `text` is the message of the error.
        code: of the error, as "insufficient_quota".
        headers: further ones.
        delay: seconds before anything is sent.
        body: sent instead of a chat completion.
        cut: hang up in the middle of the body.
        drip: seconds before each byte of the body.
        choices: sent instead of the one choice.
        finish_reason: of the choice.
        param: the field that the error is about.
    """

    text: str | None = ""
    logprobs: dict[str, Any] | None = None
    status: int = 200
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    body: bytes | None = None
    cut: bool = False
    drip: float = 0.0
    choices: list[Any] | None = None
    finish_reason: str = "stop"
    param: str | None = None


Script = Callable[[dict[str, Any], int], "str | Answer"]


def verdict_logprobs(**probabilities: float) -> dict[str, Any]:
    """Return the log-probabilities of a reply of one token, likeliest first: `verdict_logprobs(m=0.8,
    M=0.2)`."""
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    top = [
        {"token": token, "bytes": list(token.encode()), "logprob": math.log(share)} for token, share in ranked
    ]
    return {"content": [{**top[0], "top_logprobs": top}]}


def streamed(
    *texts: str, finish_reason: str | None = "stop", logprobs: dict[str, Any] | None = None
) -> Answer:
    """Return an answer that comes in these pieces, as a stream of events; without a `finish_reason` it breaks
    off. `logprobs` come with each piece."""

    def event(choices: list[Any], **further: Any) -> str:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "judge"}
        return f"data: {json.dumps({**chunk, 'choices': choices, **further})}\n\n"

    def piece(delta: dict[str, Any], finish: str | None = None) -> str:
        with_it = logprobs if finish is None else None
        return event([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": with_it}])

    events = [piece({"role": "assistant", "content": text}) for text in texts]
    if finish_reason is not None:
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        events += [piece({}, finish_reason), event([], usage=usage), "data: [DONE]\n\n"]
    return Answer(body="".join(events).encode(), headers={"Content-Type": "text/event-stream"})


class JudgeServer:
    """Serves `/v1/chat/completions`; used as a context.

    Args:
        script: gives the answer to a request's body and to how many times the same body was asked before.
        path: what is served; any other is not found.

    Attributes:
        requests: the bodies, in the order they came.
        headers: the headers of each, in lower case.
        paths: the path of each, with its query.
        times: when each came, in seconds of `time.monotonic`.
        most_at_once: the most requests that were under way at a time.
    """

    def __init__(self, script: Script, path: str = "/v1/chat/completions"):
        self._script, self.served = script, (path,)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.most_at_once = self._now = 0
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                # A client that has hung up is what some tests are about.
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(raw)
        with self._lock:
            self.times.append(time.monotonic())
            self.requests.append(body)
            self.paths.append(handler.path)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            same = json.dumps(body, sort_keys=True)
            count = self._counts.get(same, 0)
            self._counts[same] = count + 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            answer = (
                self._script(body, count)
                if urlsplit(handler.path).path in self.served
                else Answer("no such path", status=404)
            )
            self._send(handler, body, Answer(answer) if isinstance(answer, str) else answer)
        finally:
            with self._lock:
                self._now -= 1

    def _send(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], answer: Answer) -> None:
        time.sleep(answer.delay)
        content = answer.body if answer.body is not None else json.dumps(_completion(body, answer)).encode()
        handler.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if answer.drip:
            for at in range(len(content)):
                time.sleep(answer.drip)
                handler.wfile.write(content[at : at + 1])
        elif answer.cut:
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True
        else:
            handler.wfile.write(content)


def _completion(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        return {
            "error": {"message": answer.text, "type": "error", "code": answer.code, "param": answer.param}
        }
    words = sum(len(message["content"].split()) for message in body["messages"])
    reply = len((answer.text or "").split())
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": answer.finish_reason,
        "logprobs": answer.logprobs,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice] if answer.choices is None else answer.choices,
        "usage": {"prompt_tokens": words, "completion_tokens": reply, "total_tokens": words + reply},
    }
