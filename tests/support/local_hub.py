"""A hub on the loopback: the few addresses by which the `datasets` library finds and fetches a data set's
files."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = hashlib.sha1(b"the one commit").hexdigest()


class LocalHub:
    """A server of data sets: by name, their files by path. Used as a context; `requests` are the paths that
    were asked for."""

    def __init__(self, data_sets: dict[str, dict[str, bytes]]):
        self.data_sets, self.requests = data_sets, []  # type: dict[str, dict[str, bytes]], list[str]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._serve(self, body=True)

            def do_HEAD(self) -> None:
                outer._serve(self, body=False)

            def do_POST(self) -> None:
                self.rfile_content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer._serve(self, body=True)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(f"{handler.command} {path}")
        answer, headers = self._answer(path, handler)
        handler.send_response(200 if answer is not None else 404)
        for name, value in headers.items():
            handler.send_header(name, value)
        if answer is None:
            handler.send_header("X-Error-Code", "EntryNotFound")
        content = answer or b""
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if body:
            handler.wfile.write(content)

    def _answer(self, path: str, handler: BaseHTTPRequestHandler) -> tuple[bytes | None, dict[str, str]]:
        for name, files in self.data_sets.items():
            entries = [
                {"type": "file", "path": file, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
                for file, content in files.items()
            ]
            if path in (
                f"/api/datasets/{name}",
                f"/api/datasets/{name}/revision/main",
                f"/api/datasets/{name}/revision/{COMMIT}",
            ):
                about = {
                    "id": name,
                    "sha": COMMIT,
                    "private": False,
                    "gated": False,
                    "tags": [],
                    "siblings": [{"rfilename": f} for f in files],
                }
                return json.dumps(about).encode(), {"Content-Type": "application/json"}
            if path.startswith(f"/api/datasets/{name}/tree/"):
                folder = "/".join(path.removeprefix(f"/api/datasets/{name}/tree/").split("/")[1:])
                listed = [
                    entry for entry in entries if not folder or str(entry["path"]).startswith(folder + "/")
                ]
                return json.dumps(listed).encode(), {"Content-Type": "application/json"}
            if path.startswith(f"/api/datasets/{name}/paths-info/"):
                asked = json.loads(handler.rfile_content)["paths"]  # type: ignore[attr-defined]
                return json.dumps([entry for entry in entries if entry["path"] in asked]).encode(), {
                    "Content-Type": "application/json"
                }
            start = f"/datasets/{name}/resolve/"
            if path.startswith(start):
                file = "/".join(path.removeprefix(start).split("/")[1:])
                if file in files:
                    return files[file], {
                        "ETag": f'"{hashlib.sha1(files[file]).hexdigest()}"',
                        "X-Repo-Commit": COMMIT,
                        "Content-Type": "application/octet-stream",
                    }
        return None, {}
