"""A running gateway in front of the servers of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientConnectionError, ClientResponse, ClientSession
from openai import AsyncOpenAI

from e2e.cluster.machine.ports import free_ports
from finetune_gateway.app import Settings, run
from finetune_gateway.policy import Limits
from tests.integration.gateway.fake_openai import HOST

CHAT = "/v1/chat/completions"
QUESTION = {"model": "router", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Gateway:
    """`servers`: the addresses that it finds, until they are others; None: nobody can tell it."""

    url: str
    metrics_url: str
    session: ClientSession
    stop: asyncio.Event
    servers: frozenset[str] | None

    @property
    def openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    async def resolve(self) -> frozenset[str]:
        if self.servers is None:
            raise OSError("no name server answers")
        return self.servers

    async def ask(self, **changes: Any) -> tuple[int, Any]:
        async with self.session.post(self.url + CHAT, json={**QUESTION, **changes}) as response:
            return response.status, await response.json()

    async def sample(self, sample: str) -> float:
        """The value of a metric; 0 if there is none."""
        async with self.session.get(f"{self.metrics_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == sample), 0.0)

    async def until(self, sample: str, value: float) -> None:
        """Wait until a metric has this value."""
        async with asyncio.timeout(30):
            while await self.sample(sample) != value:  # noqa: ASYNC110 (another process would tell it so, too)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway(servers: Iterable[str], **changes: Any) -> AsyncIterator[Gateway]:
    """A gateway that knows these servers; `changes`: to its limits, and how long it lingers."""
    port, metrics_port = free_ports(2)
    limits = Limits(**{"in_flight": 8, "queue": 8, "queue_seconds": 30.0, **changes})
    settings = Settings(limits, HOST, port, metrics_port, linger_seconds=0, drain_seconds=30)
    async with ClientSession() as session:
        urls = (f"http://{HOST}:{one}" for one in (port, metrics_port))
        found = Gateway(*urls, session, asyncio.Event(), frozenset(servers))
        running = asyncio.create_task(run(settings, found.resolve, found.stop))
        try:
            await _healthy(found, running)
            yield found
        finally:
            found.stop.set()
            await running


async def _healthy(found: Gateway, running: asyncio.Task[None]) -> None:
    async with asyncio.timeout(30):
        while not running.done():
            with suppress(ClientConnectionError):
                answer: ClientResponse
                async with found.session.get(f"{found.metrics_url}/healthz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.01)
    await running
