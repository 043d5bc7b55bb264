"""A reverse proxy between the code under test and a real S3, which breaks requests that it is told to break.

It passes the Host header on as it came, so that signatures stay valid, and counts requests by the S3 operation.

    with s3_proxy(bucket.storage.endpoint) as proxy:
        proxy.arm(Answer(503, "SlowDown"), at=3, kind="PutObject")
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

Kind = Literal[
    "GetObject",
    "HeadObject",
    "PutObject",
    "DeleteObject",
    "ListObjects",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListMultipartUploads",
    "Other",
]
UPSTREAM_SECONDS = 60.0
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


@dataclass(frozen=True)
class Answer:
    """Answer so instead of the S3; without a code, with an empty body."""

    status: int
    code: str
    message: str = "told to"


@dataclass(frozen=True)
class Hang:
    """Read the request and say nothing for `seconds`, then close the connection."""

    seconds: float


@dataclass(frozen=True)
class CutBody:
    """Send the S3's answer, but only the first `after` bytes of its body, and close."""

    after: int = 0


@dataclass(frozen=True)
class Trickle:
    """Send the S3's answer, its body one byte every `seconds`."""

    seconds: float


@dataclass(frozen=True)
class ResetConnection:
    """Reset the connection; the S3 never sees the request."""


@dataclass(frozen=True)
class DropAnswer:
    """Let the S3 do it, and reset the connection instead of passing its answer on."""


@dataclass(frozen=True)
class SayDone:
    """Pass the request on, and say that it was done, whatever the S3 says: as one that knows no conditions would."""


@dataclass(frozen=True)
class Whole:
    """Answer with this whole object and status 200, whatever part was asked for: as one that knows no Range would."""

    content: bytes


@dataclass(frozen=True)
class Say:
    """Send the S3's answer with other headers; None: without one; a function: what it makes of what the S3 says."""

    headers: Mapping[str, str | Callable[[str], str] | None]


@dataclass(frozen=True)
class Meanwhile:
    """Do this before the S3 sees the request."""

    work: Callable[[], None]


@dataclass(frozen=True)
class Kill:
    """SIGKILL a process when the request has come: before the S3 sees it, or (`forward`) after it has done it."""

    pid: int
    forward: bool = False


Fault = Answer | Hang | CutBody | Trickle | ResetConnection | DropAnswer | SayDone | Whole | Say | Meanwhile | Kill


@dataclass(frozen=True)
class SeenRequest:
    """A request that came, whether it was broken or not. Header names are in lower case."""

    kind: Kind
    method: str
    path: str
    headers: Mapping[str, str]
    fault: Fault | None


@dataclass
class _Armed:
    fault: Fault
    kind: Kind | None
    waits: int
    times: int | None


class S3Proxy:
    """What a test holds of a running proxy."""

    def __init__(self, upstream: str) -> None:
        self.endpoint = ""
        self.upstream = urlsplit(upstream)
        self.stopped = threading.Event()
        self.requests: list[SeenRequest] = []
        self._armed: list[_Armed] = []
        self._first_tries: Fault | None = None
        self._tries: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def arm(self, fault: Fault, *, at: int = 1, kind: Kind | None = None, times: int | None = 1) -> None:
        """Break the `at`-th request from now (of `kind`, if given) and the `times - 1` after it; None: all after it."""
        with self._lock:
            self._armed.append(_Armed(fault, kind, at, times))

    def arm_first_tries(self, fault: Fault) -> None:
        """Break every request once, and let through what is sent again."""
        with self._lock:
            self._first_tries = fault
            self._tries.clear()

    def disarm(self) -> None:
        """Break nothing more."""
        with self._lock:
            self._armed.clear()
            self._first_tries = None

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self.requests.clear()

    def count(self, kind: Kind | None = None) -> int:
        """How many requests came."""
        with self._lock:
            return sum(kind is None or request.kind == kind for request in self.requests)

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        """Note a request, and answer how to break it, if at all."""
        kind = kind_of(method, path)
        with self._lock:
            fault = next((armed.fault for armed in list(self._armed) if self._strikes(armed, kind)), None)
            self._tries[method, path] += 1
            if self._first_tries is not None and self._tries[method, path] % 2 == 1:
                fault = self._first_tries
            lower = {name.lower(): value for name, value in headers.items()}
            self.requests.append(SeenRequest(kind, method, path, lower, fault))
            return fault

    def _strikes(self, armed: _Armed, kind: Kind) -> bool:
        if armed.kind not in (None, kind):
            return False
        armed.waits -= 1
        if armed.waits > 0:
            return False
        if armed.times is not None:
            armed.times -= 1
            if armed.times == 0:
                self._armed.remove(armed)
        return True


@contextlib.contextmanager
def s3_proxy(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[S3Proxy]:
    """A proxy on a free port of this machine, as long as the context lasts. `tls`: to be spoken with clients."""
    proxy = S3Proxy(upstream)

    class Handler(_Handler):
        held = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    proxy.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def kind_of(method: str, path: str) -> Kind:
    """The S3 operation of a path-style request."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    has_key = "/" in parts.path.strip("/")
    if not has_key:
        return "ListMultipartUploads" if "uploads" in query else "ListObjects" if method == "GET" else "Other"
    if "uploadId" in query:
        kinds: dict[str, Kind] = {
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }
        return kinds.get(method, "Other")
    if method == "POST" and "uploads" in query:
        return "CreateMultipartUpload"
    plain: dict[str, Kind] = {
        "GET": "GetObject",
        "HEAD": "HeadObject",
        "PUT": "PutObject",
        "DELETE": "DeleteObject",
    }
    return plain.get(method, "Other")


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the S3."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    timeout = UPSTREAM_SECONDS
    held: S3Proxy
    upstream: http.client.HTTPConnection | None = None

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        # A client that is killed, or gives up on a hung answer, is what these tests are about.
        with contextlib.suppress(OSError, http.client.HTTPException):
            super().handle()

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def answer(self) -> None:
        fault = self.held.take(self.command, self.path, dict(self.headers.items()))
        if isinstance(fault, ResetConnection):
            return self._reset()
        if isinstance(fault, Kill) and not fault.forward:
            os.kill(fault.pid, signal.SIGKILL)
            return self._reset()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if isinstance(fault, Hang):
            self.held.stopped.wait(fault.seconds)
            return self._reset()
        if isinstance(fault, Answer):
            return self._answer(fault)
        if isinstance(fault, Whole):
            return self._send_whole(fault.content)
        if isinstance(fault, Meanwhile):
            fault.work()
        self._forward(body, fault)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        if self.upstream is None:
            host, port = self.held.upstream.hostname, self.held.upstream.port
            self.upstream = http.client.HTTPConnection(cast("str", host), port, timeout=UPSTREAM_SECONDS)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        self.upstream.request(self.command, self.path, body=body or None, headers=headers)
        answer = self.upstream.getresponse()
        content = answer.read()
        if isinstance(fault, Kill):
            os.kill(fault.pid, signal.SIGKILL)
        if isinstance(fault, (Kill, DropAnswer)):
            return self._reset()
        if isinstance(fault, SayDone):
            return self._answer(Answer(200, ""))
        self.send_response_only(answer.status, answer.reason)
        length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        said = dict(fault.headers) if isinstance(fault, Say) else {}
        left_out = HOP_BY_HOP | {"content-length"} | {name.lower() for name in said}
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in left_out]
        for name, value in [*kept, *said.items()]:
            told = value(answer.headers.get(name, "")) if callable(value) else value
            if told is not None:
                self.send_header(name, told)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if isinstance(fault, CutBody):
            self.wfile.write(content[: fault.after])
            self.close_connection = True
            return None
        if isinstance(fault, Trickle):
            self._trickle(content, fault.seconds)
            return None
        self.wfile.write(content)
        return None

    def _send_whole(self, content: bytes) -> None:
        self.send_response_only(200)
        self.send_header("ETag", '"whole"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _trickle(self, content: bytes, seconds: float) -> None:
        for position in range(len(content)):
            self.wfile.write(content[position : position + 1])
            self.wfile.flush()
            if self.held.stopped.wait(seconds):
                break
        self.close_connection = True

    def _answer(self, answer: Answer) -> None:
        text = f"<Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>"
        empty = self.command == "HEAD" or not answer.code
        content = b"" if empty else f'<?xml version="1.0"?>{text}'.encode()
        self.send_response_only(answer.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        """Close with RST, so that the client sees it at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
