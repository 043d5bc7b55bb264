"""The gateway between a client, the servers of two models, and an operator that says what the canary gets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from e2e.cluster.components.certificates import Authority
from e2e.cluster.machine.ports import free_ports
from finetune_gateway.app import Settings, run
from finetune_gateway.canary import control
from finetune_gateway.canary.control import Control
from finetune_gateway.policy import Limits
from tests.integration.gateway.fake_openai import HOST, Fake, fake_openai
from tests.integration.gateway.gateways import CHAT, QUESTION

ALL = {"id": "step-1", "salt": "sha256:bb", "percent": 100}


@dataclass
class Operator:
    """What gateways are told, and what they have said. `acknowledges`: whether it has written down what came."""

    split: dict[str, Any] | None = None
    status: int = 200
    acknowledges: bool = True
    reports: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer the-token"
        report = await request.json()
        self.reports.append(report)
        sequence = report["batch"]["sequence"] if report["batch"] and self.acknowledges else None
        return web.json_response({"split": self.split, "acknowledged": sequence}, status=self.status)

    def counted(self, group: str, name: str) -> int:
        """What the batches say in all, each once."""
        batches = {(one["split"], one["batch"]["sequence"]): one["batch"] for one in self.reports if one["batch"]}
        return sum(batch[group][name] for batch in batches.values())


@dataclass
class Asked:
    session: ClientSession
    url: str
    operator: Operator
    metrics_url: str

    async def ask(self, **changes: Any) -> tuple[int, str]:
        async with self.session.post(self.url + CHAT, json={**QUESTION, **changes}) as response:
            await response.read()
            return response.status, response.headers.get("x-finetune-revision", "")

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110 (another process would tell it so, too)
                await asyncio.sleep(0.01)

    async def share(self) -> float:
        """Of the canary, as the gateway's metrics have it."""
        async with self.session.get(f"{self.metrics_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        name = "finetune_gateway_canary_share_ratio "
        (value,) = [float(line.removeprefix(name)) for line in lines if line.startswith(name)]
        return value

    async def told(self, split: dict[str, Any] | None) -> None:
        """Wait until the gateway has heard this."""
        self.operator.split = split
        heard = len(self.operator.reports) + 2
        await self.until(lambda: len(self.operator.reports) >= heard)


@asynccontextmanager
async def gateway(
    monkeypatch: pytest.MonkeyPatch, folder: Path, stable: str, canary: str, **limits: Any
) -> AsyncIterator[Asked]:
    monkeypatch.setattr(control, "ASK_SECONDS", 0.02)
    authority = Authority(folder)
    issued = authority.issue("tls", "operator", hosts=[HOST])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(issued.certificate, issued.key)
    (folder / "token").write_text("the-token\n")
    port, metrics_port, operator_port = free_ports(3)
    operator, app = Operator(), web.Application()
    app.router.add_post("/traffic", operator.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, HOST, operator_port, ssl_context=tls).start()
    where = Control(f"https://{HOST}:{operator_port}/traffic", folder / "token", authority.certificate.read_text())
    told = {"in_flight": 8, "queue": 8, "queue_seconds": 30.0, **limits}
    settings = Settings(Limits(**told), HOST, port, metrics_port, 0, 5, where)

    async def of_stable() -> frozenset[str]:
        return frozenset({stable})

    async def of_canary() -> frozenset[str]:
        return frozenset({canary}) if canary else frozenset()

    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, of_stable, stop, of_canary))
    try:
        async with ClientSession() as session:
            found = Asked(session, f"http://{HOST}:{port}", operator, f"http://{HOST}:{metrics_port}")
            await found.until(lambda: operator.reports)
            yield found
    finally:
        stop.set()
        await running
        await runner.cleanup()


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Fake, Fake]]:
    async with fake_openai("sha256:aa") as stable, fake_openai("sha256:bb") as canary:
        yield stable, canary


async def test_the_canary_gets_what_the_operator_says_and_both_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with both() as (stable, canary), gateway(monkeypatch, tmp_path, stable.url, canary.url) as found:
        assert (await found.ask())[1] == "sha256:aa", "nothing is said yet"
        assert await found.share() == 0
        await found.told(ALL)
        assert await found.share() == ALL["percent"] / 100
        assert [await found.ask(), await found.ask(stream=True)] == [(200, "sha256:bb")] * 2
        await found.until(lambda: found.operator.counted("canary", "requests") == 2)
        assert found.operator.counted("canary", "errors") == 0
        assert found.operator.counted("canary", "tokens") == 5 + 3, "of its usage; of its events"
        assert found.operator.counted("stable", "requests") == 0, "what came before is not of this step"
        batches = [one["batch"]["canary"] for one in found.operator.reports if one["batch"]]
        assert sum(sum(batch["firstToken"].values()) for batch in batches[-1:]) <= 1
        await found.told({**ALL, "percent": 0})
        assert await found.share() == 0
        assert (await found.ask())[1] == "sha256:aa"
        await found.until(lambda: found.operator.counted("stable", "requests") == 1)
        await found.told(None)
        assert (await found.ask())[1] == "sha256:aa"


async def test_a_canary_that_takes_no_connection_costs_no_answer_and_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (closed,) = free_ports(1)
    async with (
        fake_openai("sha256:aa") as stable,
        gateway(monkeypatch, tmp_path, stable.url, f"http://{HOST}:{closed}") as found,
    ):
        await found.told(ALL)
        assert [await found.ask() for _ in range(3)] == [(200, "sha256:aa")] * 3
        await found.until(lambda: found.operator.counted("canary", "errors") == 3)


async def test_a_canary_with_no_pod_or_no_room_says_nothing_of_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with fake_openai("sha256:aa") as stable, gateway(monkeypatch, tmp_path, stable.url, "") as found:
        await found.told(ALL)
        assert (await found.ask()) == (200, "sha256:aa")
        await found.told(ALL)
        assert found.operator.counted("canary", "requests") == found.operator.counted("stable", "requests") == 0


@pytest.mark.parametrize(("status", "counted"), [(500, "errors"), (429, "errors"), (400, "refused"), (404, "refused")])
async def test_an_answer_that_is_none_is_counted_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, counted: str
) -> None:
    async with both() as (stable, canary), gateway(monkeypatch, tmp_path, stable.url, canary.url) as found:
        await found.told(ALL)
        canary.status = status
        assert (await found.ask())[0] == status
        await found.until(lambda: found.operator.counted("canary", "requests") == 1)
        ends = {name: found.operator.counted("canary", name) for name in ("errors", "refused", "left")}
        assert ends == {"errors": 0, "refused": 0, "left": 0, counted: 1}


async def test_who_leaves_before_an_answer_begins_is_counted_and_who_leaves_an_answer_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with both() as (stable, canary), gateway(monkeypatch, tmp_path, stable.url, canary.url) as found:
        await found.told(ALL)
        canary.go.clear()
        for hanging in (2, 4):
            async with found.session.post(found.url + CHAT, json={**QUESTION, "stream": True}) as begun:
                await begun.content.readany()
                canary.left.clear()
            async with asyncio.timeout(30):
                await canary.left.wait()
            asking = asyncio.create_task(found.ask(stream=False))
            while len(canary.requests) < hanging:  # noqa: ASYNC110 (it hangs, so nothing tells it)
                await asyncio.sleep(0.01)
            asking.cancel()
        await found.until(lambda: found.operator.counted("canary", "left") == 2)
        assert found.operator.counted("canary", "requests") == 2


async def test_what_the_gateway_itself_refuses_says_nothing_of_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = {"in_flight": 1, "queue": 0}
    async with both() as (stable, canary), gateway(monkeypatch, tmp_path, stable.url, canary.url, **limits) as found:
        await found.told({**ALL, "percent": 0})
        stable.go.clear()
        asking = asyncio.create_task(found.ask())
        async with asyncio.timeout(30):
            await stable.came.acquire()
        assert (await found.ask())[0] == 429
        stable.go.set()
        assert (await asking)[0] == 200
        await found.until(lambda: found.operator.counted("stable", "requests") == 1)
        assert found.operator.counted("stable", "errors") == 0


async def test_a_batch_that_the_operator_refuses_does_not_come_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with both() as (stable, canary), gateway(monkeypatch, tmp_path, stable.url, canary.url) as found:
        await found.told(ALL)
        found.operator.status = 400
        await found.ask()
        await found.until(lambda: any(one["batch"] for one in found.operator.reports))
        await found.told(ALL)
        assert found.operator.reports[-1]["batch"] is None


async def test_while_the_operator_is_away_the_share_stays_and_nothing_counted_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with both() as (stable, canary), gateway(monkeypatch, tmp_path, stable.url, canary.url) as found:
        await found.told(ALL)
        found.operator.status, found.operator.acknowledges = 503, False
        await found.ask()
        await found.told(None)
        assert [(await found.ask())[1] for _ in range(3)] == ["sha256:bb"] * 3
        found.operator.split = ALL
        found.operator.status = 200
        await found.told(ALL)  # it answers, and has written nothing down
        found.operator.acknowledges = True
        await found.until(lambda: found.operator.counted("canary", "requests") == 4)
