"""A local HTTP server that serves files, and misbehaves as a test asks, request by request."""

import hashlib
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class BadServer:
    """A server of `files` (path to content) on the loopback; used as a context.

    Args:
        files: what is served, by path.
        faults: by path, what to do at the first, second, ... request instead of serving it well; each is a
            function of the request's handler and the content. None, and every request after the list's end,
            is served well.
        ranges: whether parts are served.
        etags: whether an ETag is sent.
        length: whether the length is sent.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        faults: dict[str, list["Fault | None"]] | None = None,
        ranges: bool = True,
        etags: bool = True,
        length: bool = True,
    ):
        self.files, self.faults = files, {path: list(few) for path, few in (faults or {}).items()}
        self.ranges, self.etags, self.length = ranges, etags, length
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "BadServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the headers of every request for a path."""
        return [headers for asked, headers in self.requests if asked == path]

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.requests.append((path, {name.lower(): value for name, value in handler.headers.items()}))
        fault = self.faults[path].pop(0) if self.faults.get(path) else None
        content = self.files.get(path)
        if fault is not None:
            fault(handler, content or b"")
        elif content is None:
            handler.send_error(404)
        else:
            self.send(handler, content)

    def send(self, handler: BaseHTTPRequestHandler, content: bytes, stop_after: int | None = None) -> None:
        """Serve content, or the part of it that is asked for; hang up after `stop_after` bytes of it."""
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        begin = 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and self.ranges and handler.headers.get("If-Range", etag) == etag:
            begin = int(asked[1])
            if begin >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        if self.length:
            handler.send_header("Content-Length", str(len(content) - begin))
        if self.etags:
            handler.send_header("ETag", etag)
        handler.end_headers()
        body = content[begin:] if stop_after is None else content[begin : begin + stop_after]
        handler.wfile.write(body)
        handler.close_connection = True


Fault = Callable[[Any, bytes], None]


def cut(server: BadServer, after: int) -> Fault:
    """Return a fault that hangs up after so many bytes."""
    return lambda handler, content: server.send(handler, content, stop_after=after)


def status(code: int, **headers: str) -> Fault:
    """Return a fault that answers without the file."""

    def fault(handler: Any, content: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def instead(other: bytes, kind: str = "text/html") -> Fault:
    """Return a fault that sends something else, as if all were well."""

    def fault(handler: Any, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(other)))
        handler.end_headers()
        handler.wfile.write(other)

    return fault


def reply(code: int, body: bytes, **headers: str) -> Fault:
    """Return a fault that sends an answer made up altogether, with no other headers."""

    def fault(handler: Any, content: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return fault


def redirect(target: str) -> Fault:
    """Return a fault that leads elsewhere."""
    return status(302, Location=target)


def stall(server: BadServer, after: int, seconds: float) -> Fault:
    """Return a fault that sends some bytes, and then nothing for some seconds."""

    def fault(handler: Any, content: bytes) -> None:
        server.send(handler, content, stop_after=after)
        handler.wfile.flush()
        time.sleep(seconds)

    return fault


def slowly(piece: int, pause: float) -> Fault:
    """Return a fault that sends all of it, `piece` bytes at a time with `pause` seconds between, with its
    length but without anything to resume by."""

    def fault(handler: Any, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for begin in range(0, len(content), piece):
            handler.wfile.write(content[begin : begin + piece])
            handler.wfile.flush()
            time.sleep(pause)

    return fault
