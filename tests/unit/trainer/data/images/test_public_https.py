"""A URL of a dataset reaches nothing but the public internet, and not for long."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from e2e.cluster.components.certificates import Authority
from finetune_trainer.data.images import public_https
from finetune_trainer.data.images.public_https import PublicHttps, RefusedError, is_public

HOST = "images.test"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),  # loopback
        ("127.8.8.8", False),
        ("::1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.1.2.3", False),  # private
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.168.1.1", False),
        ("fd00::1", False),
        ("fc00::1", False),
        ("100.64.0.1", False),  # carrier-grade NAT
        ("169.254.169.254", False),  # metadata: AWS, Google, Azure
        ("169.254.170.2", False),  # credentials of ECS tasks
        ("fd00:ec2::254", False),  # AWS, IPv6
        ("100.100.100.200", False),  # Alibaba
        ("192.0.0.192", False),  # Oracle
        ("168.63.129.16", False),  # Azure's wire server
        ("fe80::1", False),  # link-local
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),  # multicast
        ("ff02::1", False),
        ("240.0.0.1", False),  # reserved
        ("255.255.255.255", False),
        ("192.0.2.1", False),  # documentation
        ("2001:db8::1", False),
        ("198.18.0.1", False),  # benchmarks
        ("::ffff:127.0.0.1", False),  # IPv4 in IPv6
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:93.184.215.14", True),
        ("::127.0.0.1", False),
        ("64:ff9b::93.184.215.14", True),  # NAT64
        ("64:ff9b::169.254.169.254", False),
        ("64:ff9b:1::a00:1", False),
        ("2002:a00:1::", False),  # 6to4 of 10.0.0.1
        ("2001:0:a00:1::", False),  # Teredo
        ("localhost", False),
        ("", False),
    ],
)
def test_only_an_address_of_the_public_internet_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


class Answers(BaseHTTPRequestHandler):
    """Answers as the path says."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]]
    failures: int

    def do_GET(self) -> None:
        type(self).seen.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["ok", *_]:
                self._send(200, b"x" * 100)
            case ["large"]:
                self._send(200, b"x" * 2000)
            case ["endless"]:
                self._start(200, {"Transfer-Encoding": "chunked"})
                while True:
                    self.wfile.write(b"10\r\n" + b"x" * 16 + b"\r\n")
            case ["slow"]:
                self._start(200, {"Content-Length": "100000"})
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            case ["short"]:
                self._start(200, {"Content-Length": "1000"})
                self.wfile.write(b"x")
                self.close_connection = True
            case ["lies"]:
                self._start(200, {"Content-Length": "99999999999"})
            case ["to", *target]:
                self._send(302, b"", {"Location": "/".join(target).replace("COLON", ":").replace("SLASH", "/")})
            case ["round", count]:
                self._send(302, b"", {"Location": f"/round/{int(count) + 1}"})
            case ["later"]:
                type(self).failures -= 1
                self._send(503 if type(self).failures >= 0 else 200, b"done")
            case _:
                self._send(404, b"")

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._start(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # clients hang up here


@dataclass(frozen=True)
class Running:
    """A server on this machine, and what trusts its certificate."""

    port: int
    tls: ssl.SSLContext


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    issued = authority.issue("server", "server", hosts=[HOST])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    with Server(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Running(server.server_address[1], ssl.create_default_context(cafile=str(authority.certificate)))
        server.shutdown()


@pytest.fixture
def port(server: Running) -> int:
    return server.port


@pytest.fixture
def web(server: Running) -> PublicHttps:
    """Takes the server of this test for the public internet; every other address is judged as ever."""
    Answers.seen, Answers.failures = [], 0
    return PublicHttps(
        resolve=lambda host, _: ["127.0.0.1"] if host == HOST else ["10.0.0.7"],
        is_public=lambda address: address == "127.0.0.1" or is_public(address),
        tls=server.tls,
        pause=lambda seconds: None,
    )


def everything(url: str) -> bool:
    return True


def test_a_body_comes_without_credentials_or_cookies(web: PublicHttps, port: int) -> None:
    assert web.get(f"https://{HOST}:{port}/ok?a=b", allowed=everything, most_bytes=100) == b"x" * 100
    (request,) = Answers.seen
    assert request["path"] == "/ok?a=b"
    assert request["host"] == f"{HOST}:{port}"
    assert request.keys() <= {"path", "host", "accept", "accept-encoding", "user-agent"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://{host}/ok", "only https://"),
        ("file:///etc/passwd", "only https://"),
        ("https:///ok", "only https://"),
        ("https://user:secret@{host}/ok", "user or password"),
        ("https://{host}/o k", "characters"),
        ("https://{host}/ok\r\nX-Evil: 1", "characters"),
        ("https://bücher.test/ok", "characters"),
        ("https://{name}:99999/ok", "no URL"),
        ("https://internal.test/ok", "internal.test is not a host on the public internet"),
        ("https://{host}/missing", "the server answers 404"),
        ("https://{host}/large", "more than 1000 bytes"),
        ("https://{host}/lies", "more than 1000 bytes"),
        ("https://{host}/endless", "more than 1000 bytes"),
        ("https://{host}/short", "ended before the last byte"),
        ("https://{host}/round/1", "redirects more than 3 times"),
        ("https://{host}/to/httpCOLONSLASHSLASH{host}SLASHok", "only https://"),
        ("https://{host}/to/httpsCOLONSLASHSLASHinternal.testSLASHok", "internal.test is not a host"),
        ("https://{host}/to/httpsCOLONSLASHSLASHuserCOLONx@{host}SLASHok", "user or password"),
        ("https://wrong.test:{port}/ok", "wrong.test is not a host"),
    ],
)
def test_a_url_or_answer_outside_the_limits_is_refused_with_the_cause(
    web: PublicHttps, port: int, url: str, message: str
) -> None:
    target = url.format(host=f"{HOST}:{port}", name=HOST, port=port)
    with pytest.raises(RefusedError, match=message):
        web.get(target, allowed=everything, most_bytes=1000)


def test_a_redirect_is_judged_as_the_first_url_was(web: PublicHttps, port: int) -> None:
    there = f"https://{HOST}:{port}/to/SLASHokSLASHtwo"
    assert web.get(there, allowed=everything, most_bytes=1000) == b"x" * 100
    asked: list[str] = []

    def only_first(url: str) -> bool:
        asked.append(url)
        return url == there

    with pytest.raises(RefusedError, match=r"sources\.images do not allow"):
        web.get(there, allowed=only_first, most_bytes=1000)
    assert asked == [there, f"https://{HOST}:{port}/ok/two"]


def test_one_private_address_among_public_ones_is_enough(web: PublicHttps, port: int) -> None:
    mixed = PublicHttps(resolve=lambda host, _: ["93.184.215.14", "10.0.0.7"], pause=lambda seconds: None)
    with pytest.raises(RefusedError, match="not a host on the public internet"):
        mixed.get("https://rebinding.test/ok", allowed=everything, most_bytes=10)


def test_the_name_is_resolved_once_for_a_connection(
    web: PublicHttps, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers something else the second time (DNS rebinding) is not asked a second time."""
    answers: Iterator[list[str]] = iter([["127.0.0.1"], ["10.0.0.7"]])
    rebinding = PublicHttps(lambda host, _: next(answers), web.is_public, web.tls, web.pause)

    def no_lookup(*_: Any, **__: Any) -> None:
        raise AssertionError("looked up again")

    real: Callable[..., Any] = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: real(host, *rest, **more) if host == "127.0.0.1" else no_lookup(),
    )
    assert rebinding.get(f"https://{HOST}:{port}/ok", allowed=everything, most_bytes=1000)


def test_a_certificate_of_another_host_is_refused(web: PublicHttps, port: int) -> None:
    other = PublicHttps(lambda host, _: ["127.0.0.1"], web.is_public, web.tls, web.pause)
    with pytest.raises(RefusedError, match="certificate verify failed"):
        other.get(f"https://other.test:{port}/ok", allowed=everything, most_bytes=1000)


def test_a_server_that_trickles_is_hung_up_on(web: PublicHttps, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_https, "FETCH_SECONDS", 0.4)
    started = time.monotonic()
    with pytest.raises(RefusedError, match="longer than"):
        web.get(f"https://{HOST}:{port}/slow", allowed=everything, most_bytes=10**6)
    assert time.monotonic() - started < 5


def test_a_server_that_is_busy_is_asked_again(web: PublicHttps, port: int) -> None:
    Answers.failures = 2
    assert web.get(f"https://{HOST}:{port}/later", allowed=everything, most_bytes=1000) == b"done"
    Answers.failures = 9
    with pytest.raises(RefusedError, match="can't be fetched: the server answers 503"):
        web.get(f"https://{HOST}:{port}/later", allowed=everything, most_bytes=1000)
