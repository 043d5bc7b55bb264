"""A Hugging Face hub, played: a server with one dataset repository, for the real huggingface_hub to talk to.

The protocol: https://huggingface.co/docs/hub/api and the headers that `hf_hub_download` reads.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPOSITORY = "org/name"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCH = "main"


@contextmanager
def other_server(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """The endpoint of a server that is no hub, and answers everything with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as endpoint:
        yield endpoint


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """The endpoint of a server with the files of a folder."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as endpoint:
        yield endpoint


@contextmanager
def refusing_hub(status: int, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """The endpoint of a hub that answers every request so."""
    with other_server(b"", status, headers) as endpoint:
        yield endpoint


@contextmanager
def gated_hub(files: Sequence[str], token: str) -> Iterator[str]:
    """The endpoint of a hub that lists these files of any model, to whoever brings the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == f"Bearer {token}"
            found = [{"type": "file", "path": file, "oid": file, "size": 0} for file in files]
            body = json.dumps(found).encode() if allowed else b""
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            if not allowed:
                self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as endpoint:
        yield endpoint


@contextmanager
def played_hub(files: Mapping[str, bytes], repository: str = REPOSITORY) -> Iterator[str]:
    """The endpoint of a hub whose repository has these files at BRANCH, which is COMMIT."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            about, content = f"/api/datasets/{repository}", f"/datasets/{repository}/resolve/{COMMIT}/"
            if path in (about, f"{about}/revision/{BRANCH}", f"{about}/revision/{COMMIT}"):
                self._answer(json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
            elif path == f"{about}/tree/{COMMIT}":
                found = [{"type": "file", "path": name, "oid": name, "size": len(files[name])} for name in files]
                self._answer(json.dumps(found).encode())
            elif path.startswith(content) and path.removeprefix(content) in files:
                body = files[path.removeprefix(content)]
                etag = f'"{hashlib.sha256(body).hexdigest()}"'
                self._answer(body, {"ETag": etag, "X-Repo-Commit": COMMIT})
            elif path.startswith(f"{about}/revision/"):
                self._answer(b"", {"X-Error-Code": "RevisionNotFound"}, 404)
            else:
                self._answer(b"", {"X-Error-Code": "RepoNotFound"}, 404)

        def _answer(self, body: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as endpoint:
        yield endpoint


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
