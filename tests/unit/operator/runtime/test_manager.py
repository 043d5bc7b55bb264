"""The process: when it is alive and ready, and what a resync finds."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.components.certificates import Authority
from finetune_operator.core.references import ObjectKey
from finetune_operator.environment import Environment
from finetune_operator.kube.cache import Cache
from finetune_operator.kube.resources import EVALUATIONS, FINE_TUNE_JOBS, LEASES
from finetune_operator.metrics.object_metrics import ObjectMetrics
from finetune_operator.progress import server as progress_server
from finetune_operator.registered_kinds import KINDS as REGISTERED
from finetune_operator.runtime import manager
from finetune_operator.runtime.leader_election import Election
from finetune_operator.runtime.manager import Parts
from finetune_operator.runtime.sharding import Shard
from finetune_operator.runtime.watches import selectors
from finetune_operator.runtime.workqueue import WorkQueue
from finetune_operator.settings import Settings
from tests.unit.operator.fake_kube import FakeKube

ROUTER, DONE = ObjectKey("FineTuneJob", "team-a", "router"), ObjectKey("FineTuneJob", "team-a", "done")
HOST = "127.0.0.1"
SETTINGS = Settings(trainer_image="example.com/trainer:1", resync_seconds=0.02)
ENVIRONMENT = Environment(SETTINGS.trainer_image)
KINDS = tuple(kind(ENVIRONMENT) for kind in REGISTERED)


def parts(kube: FakeKube, election: Election | None = None) -> Parts:
    cache = Cache(selectors(KINDS), "owner")
    return Parts(SETTINGS, asyncio.Event(), kube, cache, election, KINDS, ENVIRONMENT, ObjectMetrics(), WorkQueue())


def item(key: ObjectKey) -> dict[str, Any]:
    return {"metadata": {"namespace": key.namespace, "name": key.name, "uid": key.name, "resourceVersion": "7"}}


async def test_a_resync_looks_at_what_is_not_finished() -> None:
    """What vanished unseen comes with the next list: test_informer."""
    found = parts(FakeKube())
    evaluation = ObjectKey("Evaluation", "team-a", "judge")
    for resource, key in ((FINE_TUNE_JOBS, ROUTER), (FINE_TUNE_JOBS, DONE), (EVALUATIONS, evaluation)):
        found.cache.apply_event(resource, "ADDED", item(key))
    found.cache.mark_finished(FINE_TUNE_JOBS, DONE.namespace, DONE.name, "7")
    task = asyncio.create_task(manager._resync(found))
    async with asyncio.timeout(10):
        while set(found.queue.waiting()) != {ROUTER, evaluation}:  # noqa: ASYNC110 - the queue tells nobody
            await asyncio.sleep(0.01)
    task.cancel()


async def test_a_resync_leaves_alone_what_is_looked_at_or_has_ended_meanwhile() -> None:
    """To look at what has just ended would read it and its children from the API server."""
    found = parts(FakeKube())
    other = ObjectKey("FineTuneJob", "team-a", "other")
    for key in (ROUTER, DONE, other):
        found.cache.apply_event(FINE_TUNE_JOBS, "ADDED", item(key))
    found.queue.add(ROUTER)
    await found.queue.get()
    task = asyncio.create_task(manager._resync(found))
    await asyncio.sleep(0)
    found.cache.mark_finished(FINE_TUNE_JOBS, DONE.namespace, DONE.name, "7")
    async with asyncio.timeout(10):
        for _ in range(2):  # then one resync at least has gone through all of them
            while found.queue.waiting() != (other,):
                assert set(found.queue.waiting()) <= {other}
                await asyncio.sleep(0.01)
            await found.queue.get()
            found.queue.done(other)
        found.queue.done(ROUTER)
        while ROUTER not in found.queue.waiting():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()


async def test_it_is_ready_when_all_is_listed_and_not_alive_when_nothing_more_is_heard() -> None:
    now = 0.0
    found = replace(parts(FakeKube()), cache=Cache(selectors(KINDS), "owner", lambda: now))
    assert manager._alive(found) == []
    assert manager._ready(found) == ["the watches have not started"]
    now = 1000.0
    assert manager._alive(found) == [], "it may have to wait until it leads"
    for resource in selectors(KINDS):
        found.cache.heard_from(resource)
    found.watching.set()
    now = 1179.0
    assert (manager._alive(found), manager._ready(found)) == ([], [])
    for resource in set(selectors(KINDS)) - {FINE_TUNE_JOBS}:
        found.cache.heard_from(resource)
    now = 1181.0
    assert manager._alive(found) == ["no response from the API server about finetunejobs for 181 s"]
    found.stop.set()
    assert manager._alive(found) == [], "a stop is no reason to kill it"
    assert manager._ready(found) == ["told to stop"]


async def test_who_stands_by_is_ready_while_it_sees_who_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = FakeKube({f"GET {LEASES.path('finetune-system')}": {"metadata": {"resourceVersion": "1"}, "items": []}})
    election = Election(kube, "finetune-system", Shard())
    found = parts(kube, election)
    monkeypatch.setattr(election, "silent_seconds", lambda: 1.0)
    assert manager._ready(found) == []
    monkeypatch.setattr(election, "silent_seconds", lambda: 60.0)
    assert manager._ready(found) == ["the API server has not said for 60 s who leads"]
    await election.acquire()
    assert manager._ready(found) == ["the watches have not started"]


async def test_a_stop_while_it_stands_by_ends_the_wait() -> None:
    stop = asyncio.Event()
    waiting = asyncio.create_task(manager._before_stop(asyncio.sleep(60), stop))
    await asyncio.sleep(0)
    stop.set()
    assert await asyncio.wait_for(waiting, 5) is False
    assert await manager._before_stop(asyncio.sleep(0), asyncio.Event()) is True


async def test_a_renewed_certificate_is_served_and_one_that_can_not_be_read_changes_nothing(tmp_path: Path) -> None:
    settings = replace(SETTINGS, progress_url="https://127.0.0.1:8443", tls_directory=tmp_path)
    found = replace(parts(FakeKube()), settings=settings, environment=Environment(""))
    first = issue(tmp_path)
    tls = progress_server.server_tls(tmp_path)
    manager._renew_certificate(found, tls)

    other_key = Authority(tmp_path / "other").issue("tls", "finetune-operator", hosts=[HOST]).key.read_text()
    for fault in ("half of a ke", other_key, None):
        (tmp_path / "tls.key").unlink()
        if fault is not None:
            (tmp_path / "tls.key").write_text(fault)
        (tmp_path / "tls.key").touch()
        manager._renew_certificate(found, tls)
        assert trusted(found) == first, fault
        await connect(tls, first)

    second = issue(tmp_path)
    manager._renew_certificate(found, tls)
    assert trusted(found) == second != first
    await connect(tls, second)
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(tls, first)


def issue(folder: Path) -> str:
    """A certificate of a new CA in the folder; returns the CA."""
    for file in folder.glob("*.*"):
        file.unlink()
    authority = Authority(folder)
    authority.issue("tls", "finetune-operator", hosts=[HOST])
    return authority.certificate.read_text()


def trusted(found: Parts) -> str:
    """The CA that new attempts get."""
    assert found.environment.progress_endpoint is not None
    return found.environment.progress_endpoint.ca


async def connect(tls: ssl.SSLContext, ca: str) -> None:
    """Connect to a server with this context, as a client that trusts the CA."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(HOST, port, ssl=ssl.create_default_context(cadata=ca))
        writer.close()
