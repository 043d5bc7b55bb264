"""What the gateway takes for its servers, and when it is ready."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

import pytest

from finetune_gateway import servers
from finetune_gateway.policy import Limits
from finetune_gateway.pool import Pool
from finetune_gateway.servers import CLUSTER_DNS_PROBE, by_name, follow

NAME = "router-servers.team-a.svc"
A = "http://10.0.0.1:8000"


def names(monkeypatch: pytest.MonkeyPatch, known: Iterable[str]) -> None:
    """The DNS has these names, and says of others that there are none."""

    async def look_up(host: str, port: int, **_: object) -> list[object]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)


async def test_no_address_is_no_server_only_where_the_cluster_has_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, [NAME, CLUSTER_DNS_PROBE])
    assert await by_name(NAME, 8000)() == {A}
    names(monkeypatch, [CLUSTER_DNS_PROBE])
    assert await by_name(NAME, 8000)() == frozenset()
    names(monkeypatch, [])
    with pytest.raises(OSError, match="not known"):
        await by_name(NAME, 8000)()


async def looked(monkeypatch: pytest.MonkeyPatch, *answers: frozenset[str] | None, none_seconds: float = 600) -> bool:
    """Whether the gateway is ready after these answers; None: nobody could tell."""
    monkeypatch.setattr(servers, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(servers, "NONE_SECONDS", none_seconds)
    left, over, known = list(answers), asyncio.Event(), asyncio.Event()

    async def resolve() -> frozenset[str]:
        if not left:
            over.set()
            await asyncio.Event().wait()
        answer = left.pop(0)
        if answer is None:
            raise OSError("no name server answers")
        return answer

    following = asyncio.create_task(follow(Pool(Limits(1, 1, 1)), resolve, known))
    await over.wait()
    following.cancel()
    return known.is_set()


async def test_it_is_ready_once_it_has_seen_a_server_and_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    none, one = frozenset[str](), frozenset({A})
    assert not await looked(monkeypatch, none, none)
    assert await looked(monkeypatch, none, one)
    assert await looked(monkeypatch, one, none, None)


async def test_with_no_replicas_it_is_ready_after_a_while_for_requests_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await looked(monkeypatch, frozenset(), none_seconds=0)
    assert not await looked(monkeypatch, None, none_seconds=0), "nobody could tell"
