"""A hub on the loopback that models are uploaded to: it makes repositories and takes one commit's files."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_never_to_be_written_down"


class UploadHub:
    """Used as a context; `files` are those of each repository by path, `made` what was asked of a new one.

    Args:
        refuse: the path's end whose requests are refused with 403.
    """

    def __init__(self, refuse: str | None = None):
        self.refuse = refuse
        self.made: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.files: dict[str, dict[str, bytes]] = {}
        self._large: dict[str, bytes] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._post(self)

            def do_PUT(self) -> None:
                outer._large[self.path.rpartition("/")[2]] = outer._body(self)
                outer._say(self, {})

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "UploadHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        path, body = urlsplit(handler.path).path, self._body(handler)
        self.tokens.add(str(handler.headers.get("Authorization")))
        if self.refuse and path.endswith(self.refuse):
            self._say(handler, {"error": f"no right to write with {TOKEN}"}, 403)
        elif path == "/api/repos/create":
            self.made.append(json.loads(body))
            owner = self.made[-1].get("organization") or "me"
            name = f"{owner}/{self.made[-1]['name']}"
            self._say(handler, {"url": f"{self.url}/{name}", "name": name, "id": "1"})
        elif path == "/api/validate-yaml":
            self._say(handler, {"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._say(handler, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._say(handler, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            kept = self.files.setdefault(name, {})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    kept[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    kept[value["path"]] = self._large[value["oid"]]
            self._say(handler, {"commitUrl": f"{self.url}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40})
        else:
            self._say(handler, {"error": f"nothing is at {path}"}, 404)

    @staticmethod
    def _body(handler: BaseHTTPRequestHandler) -> bytes:
        if handler.headers.get("Transfer-Encoding") != "chunked":
            return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        parts = []
        while size := int(handler.rfile.readline(), 16):
            parts.append(handler.rfile.read(size))
            handler.rfile.readline()
        handler.rfile.readline()
        return b"".join(parts)

    @staticmethod
    def _say(handler: BaseHTTPRequestHandler, value: dict[str, Any], code: int = 200) -> None:
        content = json.dumps(value).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
