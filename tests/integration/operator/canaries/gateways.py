"""Gateway processes and servers of a ModelDeployment whose Pods are played: what they do is real."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError, ClientSession, web

from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.ports import free_ports
from finetune_api.pod_contracts.progress import PROGRESS_AUDIENCE
from tests.integration.operator.api import Api, Object

STABLE, CANARY = "127.0.0.1", "127.0.0.2"
"""One port for all servers, as in a cluster: what tells them apart is the address."""
ROOT = Path(__file__).parents[4]


def token(api: Api, pod: Object) -> str:
    """What the kubelet projects into a Pod."""
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    spec: Object = {"audiences": [PROGRESS_AUDIENCE], "expirationSeconds": 3600}
    spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    issued: str = api.request("POST", f"{api.path('ServiceAccount', 'default')}/token", body)["status"]["token"]
    return issued


@dataclass
class Servers:
    """Both revisions. Of the canary: `failing`, the share of its answers that are an error; `tokens` of an answer;
    `first_seconds`, until its first one."""

    port: int
    failing: float = 0.0
    tokens: int = 5
    first_seconds: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        is_canary = request.transport.get_extra_info("sockname")[0] == CANARY
        headers = {"x-finetune-revision": "canary" if is_canary else "stable"}
        body = await request.read()
        if is_canary and self.chance.random() < self.failing:
            return web.json_response({"error": {"message": "broken"}}, status=500, headers=headers)
        tokens = self.tokens if is_canary else 5
        if b'"stream"' in body:
            return await _streamed(request, headers, tokens, self.first_seconds if is_canary else 0.0)
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
        return web.json_response({"object": "chat.completion", "choices": [], "usage": usage}, headers=headers)


async def _streamed(
    request: web.Request, headers: dict[str, str], tokens: int, first_seconds: float
) -> web.StreamResponse:
    """Some tokens and the end, as OpenAI streams them."""
    answer = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
    await answer.prepare(request)
    await asyncio.sleep(first_seconds)
    for _ in range(tokens):
        await answer.write(b'data: {"choices": [{"index": 0, "delta": {"content": "word"}}]}\n\n')
    await answer.write(b"data: [DONE]\n\n")
    return answer


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """A server at each address."""
    (port,) = free_ports(1)
    found = Servers(port)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        for host in (STABLE, CANARY):
            await web.TCPSite(runner, host, port).start()
        yield found
    finally:
        await runner.cleanup()


class GatewayProcess:
    """What a gateway's Pod runs, with its own arguments, token and CA; only the servers' names lead elsewhere."""

    def __init__(self, api: Api, pod: Object, servers_port: int, folder: Path) -> None:
        (container,) = pod["spec"]["containers"]
        self.port, metrics_port = free_ports(2)
        (folder / "token").write_text(token(api, pod))
        ours = {
            "--servers": STABLE,
            "--canary-servers": CANARY,
            "--servers-port": servers_port,
            "--port": self.port,
            "--metrics-port": metrics_port,
            "--control-token": folder / "token",
            "--linger-seconds": 0,
        }
        given = dict(argument.partition("=")[::2] for argument in container["args"])
        assert ours.keys() <= given.keys(), "the Pod has these, too"
        self._command = [f"{name}={value}" for name, value in {**given, **ours, "--host": STABLE}.items()]
        self._environment = {one["name"]: one["value"] for one in container["env"]}
        self._log = folder / f"gateway-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (it takes no time)
                with_parent([sys.executable, "-m", "finetune_gateway", *self._command]),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src"), **self._environment},
            )
        async with asyncio.timeout(60), ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://{STABLE}:{self.port}/v1/models") as answer:
                        if answer.status == 200:
                            return
                except ClientError:
                    assert self._process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: no time to tell anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)


@dataclass
class Client:
    """Asks a gateway; `answers`: how many came from whom, with which status."""

    gateway: GatewayProcess
    session: ClientSession
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def ask(self, number: int, session_id: str | None = None) -> None:
        """So many requests, one after another, of one session or of none; every third is for a stream."""
        for one in range(number):
            body = {"messages": [], **({"stream": True} if one % 3 == 2 else {})}
            headers = {"x-session-id": session_id} if session_id is not None else {}
            url = f"http://{STABLE}:{self.gateway.port}/v1/chat/completions"
            async with self.session.post(url, json=body, headers=headers) as answer:
                self.answers[answer.headers.get("x-finetune-revision", ""), answer.status] += 1
                await answer.read()

    def of(self, revision: str) -> int:
        return sum(count for (by, _), count in self.answers.items() if by == revision)
