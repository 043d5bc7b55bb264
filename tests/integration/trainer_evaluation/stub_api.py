"""An OpenAI-compatible API of a test's own, over real HTTP, that answers as the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Respond:
    """A response; a `body` of bytes is sent as it is."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def says(text: str, **message: Any) -> Respond:
    """A chat completion of 100 tokens of prompt and 20 of reply."""
    reason = message.pop("finish_reason", "stop")
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **message}}
    return Respond(body={"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}})


def grades(result: object) -> Respond:
    """What a judge should say."""
    return says(json.dumps({"steps": [], "result": result}))


def fails(status: int, message: str = "", param: str | None = None, **headers: str) -> Respond:
    """An error in OpenAI's form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Respond(status, {"error": {"message": message, "param": param}}, named)


@dataclass
class StubApi:
    """It answers one after another, and the last answer again and again; it keeps what it was sent."""

    answers: list[Respond | Callable[[Body], Respond]]
    requests: list[Body] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, path: str, key: str | None, body: Body) -> Respond:
        with self._lock:
            self.requests.append(body)
            self.paths.append(path)
            self.keys.append(key)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            return answer if isinstance(answer, Respond) else answer(body)
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def stub_api(*answers: Respond | Callable[[Body], Respond]) -> Iterator[StubApi]:
    """A running one."""
    api = StubApi(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            response = api.respond(self.path, self.headers.get("Authorization"), body)
            content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
            self.send_response(response.status)
            for name, value in {**response.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):  # a client that waits no longer
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
