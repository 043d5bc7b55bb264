"""Tokens of exec plugins and of OIDC expire while a client waits: it logs in again, once for each refusal."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_client import AsyncFineTuneClient, FineTuneClient, ForbiddenError
from finetune_client.aio.connection import Connection
from finetune_client.connecting import Source
from tests.integration.operator.python_client.driven import Driven
from tests.unit.kubectl_finetune.cluster_objects import SUCCEEDED, TRAINING, job

REFUSED = {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}
PLUGIN = """#!/bin/sh
echo >> "$0.logins"
token=$(($(wc -l < "$0.logins")))
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "'$token'"}}'
"""


class ApiServer:
    """Accepts one token at a time; the plugin's first login gives token 1, the next one token 2."""

    def __init__(self, folder: Path) -> None:
        self.accepted = "1"
        self.asked: list[str] = []
        """The token of each request."""
        self.expires_before_watch = False
        self.goes_on = threading.Event()
        self._plugin = folder / "plugin.sh"
        self._plugin.write_text(PLUGIN)
        self._plugin.chmod(0o755)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.kubeconfig = folder / "kubeconfig.yaml"
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(self._plugin),
            "interactiveMode": "Never",
        }
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}],
                    "users": [{"name": "a", "user": {"exec": plugin}}],
                    "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                    "current-context": "a",
                }
            )
        )

    @property
    def logins(self) -> int:
        return len(Path(f"{self._plugin}.logins").read_text())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "watch=true" in self.path and api.expires_before_watch:
                    api.expires_before_watch, api.accepted = False, str(int(api.accepted) + 1)
                token = self.headers["Authorization"].removeprefix("Bearer ")
                api.asked.append(token)
                is_known = token == api.accepted
                self.send_response(200 if is_known else 401)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                for part in self._parts() if is_known else [json.dumps(REFUSED).encode()]:
                    self.wfile.write(part)
                    self.wfile.flush()

            def _parts(self) -> Iterator[bytes]:
                if self.path == "/stream":
                    yield b"one\n"
                    api.goes_on.wait()
                    yield b"two\n"
                elif "watch=true" in self.path:
                    yield json.dumps({"type": "MODIFIED", "object": job(SUCCEEDED)}).encode() + b"\n"
                else:
                    yield json.dumps(job(TRAINING, resourceVersion="7")).encode()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    made = ApiServer(tmp_path)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.goes_on.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: ApiServer) -> Iterator[Any]:
    options: dict[str, Any] = {"namespace": "team-a", "kubeconfig": server.kubeconfig}
    if request.param == "sync":
        with FineTuneClient(**options) as made:
            yield made
        return
    with asyncio.Runner() as runner:
        driven = Driven(AsyncFineTuneClient(**options), runner)
        yield driven
        driven.close()


def test_a_token_that_has_expired_is_replaced(client: Any, server: ApiServer) -> None:
    client.get("router")
    server.accepted = "2"
    assert client.get("router").name == job(TRAINING)["metadata"]["name"]
    client.get("router")
    assert server.asked == ["1", "1", "2", "2"] and server.logins == 2


def test_a_wait_goes_on_when_its_token_expires(client: Any, server: ApiServer) -> None:
    waited = client.get("router")
    server.expires_before_watch = True
    assert waited.wait(timeout=60.0).phase == "Succeeded"
    assert server.logins == 2


@pytest.mark.parametrize(
    "asks", [lambda client: client.get("router"), lambda client: client.list()], ids=["get", "list"]
)
def test_a_new_token_that_is_refused_too_is_the_error(
    client: Any, server: ApiServer, asks: Callable[[Any], Any]
) -> None:
    server.accepted = "none"
    with pytest.raises(ForbiddenError, match=r"^Unauthorized\. Log in to the cluster again\.$"):
        asks(client)
    assert server.asked == ["1", "2"]


async def test_a_new_login_cuts_no_stream_that_is_read(server: ApiServer) -> None:
    """One client may wait for many runs at once."""
    connection = Connection(Source(str(server.kubeconfig), None, False))
    async with aclosing(connection.lines("/stream", {})) as lines:
        assert await anext(lines) == b"one"
        server.accepted = "2"
        await connection.send("GET", "/object")
        server.goes_on.set()
        assert [line async for line in lines] == [b"two"]
    await connection.close()
