"""The process: when it is alive and ready, and what a resync finds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.certificates import Authority
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.environment import Environment
from finetune_operator.kube.errors import ApiError
from finetune_operator.metrics.object_metrics import ObjectMetrics
from finetune_operator.progress import server as progress_server
from finetune_operator.registry import KINDS as REGISTERED
from finetune_operator.runtime import manager
from finetune_operator.runtime.health import WatchEndedError
from finetune_operator.runtime.leader_election import Election
from finetune_operator.runtime.manager import Parts
from finetune_operator.runtime.watches import watched
from finetune_operator.settings import Settings
from tests.unit.operator.fake_kube import FakeKube

JOBS = "GET /apis/finetune.dev/v1alpha1/finetunejobs"
EVALUATIONS = "GET /apis/finetune.dev/v1alpha1/evaluations"
ROUTER = ObjectKey("FineTuneJob", "team-a", "router")
HOST = "127.0.0.1"
SETTINGS = Settings(trainer_image="example.com/trainer:1", resync_seconds=0.02)
ENVIRONMENT = Environment(SETTINGS.trainer_image)
KINDS = tuple(kind(ENVIRONMENT) for kind in REGISTERED)
WATCHED = watched(KINDS)


def parts(kube: FakeKube, election: Election | None = None) -> Parts:
    return Parts(SETTINGS, asyncio.Event(), kube, election, KINDS, ENVIRONMENT, ObjectMetrics())


def item(key: ObjectKey) -> dict[str, Any]:
    return {"metadata": {"namespace": key.namespace, "name": key.name}}


async def resynced(found: Parts, until: Callable[[], bool]) -> None:
    """Resync until something is so."""
    task = asyncio.create_task(manager._resync(found))
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110 - the queue tells nobody
            await asyncio.sleep(0.01)
    task.cancel()


async def test_a_resync_looks_at_what_there_is_and_at_what_vanished_unseen() -> None:
    found = parts(FakeKube({JOBS: {"items": [item(ROUTER)]}, EVALUATIONS: {"items": []}}))
    gone = ROUTER._replace(name="gone")
    found.objects.written(gone, FineTuneJobStatus(), FineTuneJobStatus(phase="Queued"))
    await resynced(found, lambda: set(found.queue.waiting()) == {ROUTER, gone})


async def test_a_kind_that_can_not_be_listed_does_not_keep_the_others_from_it() -> None:
    evaluation = ObjectKey("Evaluation", "team-a", "judge")
    answers: dict[str, Any] = {JOBS: ApiError(500, "", ""), EVALUATIONS: {"items": [item(evaluation)]}}
    found = parts(FakeKube(answers))
    await resynced(found, lambda: set(found.queue.waiting()) == {evaluation})


@contextmanager
def watching(*plurals: str) -> Iterator[None]:
    """Tasks with the names that Kopf gives to its watches."""
    tasks = [asyncio.create_task(asyncio.sleep(60), name=f"watcher for {plural}.v1@None") for plural in plurals]
    yield
    for task in tasks:
        task.cancel()


async def test_it_is_ready_when_every_watch_runs_and_ends_when_one_has_ended() -> None:
    found = parts(FakeKube())
    assert manager._alive(found) == []
    assert manager._ready(found) == ["the watches have not started"]
    guard = asyncio.create_task(manager._guard_watches(found))
    with watching(*WATCHED):
        await asyncio.wait_for(found.watching.wait(), 10)
        assert (manager._alive(found), manager._ready(found)) == ([], [])
    await asyncio.sleep(0)
    with watching(*WATCHED[1:]):
        assert manager._alive(found) == [f"nothing watches {WATCHED[0]} any more"]
        with pytest.raises(WatchEndedError, match=WATCHED[0]):
            await asyncio.wait_for(guard, 10)


async def test_while_it_stops_ended_watches_are_no_failure() -> None:
    found = parts(FakeKube())
    guard = asyncio.create_task(manager._guard_watches(found))
    with watching(*WATCHED):
        await asyncio.wait_for(found.watching.wait(), 10)
    found.stop.set()
    await asyncio.wait_for(guard, 10)
    assert manager._alive(found) == [], "a stop is no reason to kill it"
    assert manager._ready(found) == ["told to stop"]


async def test_who_stands_by_is_ready_while_it_sees_who_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = FakeKube()
    election = Election(kube, "finetune-system", "finetune-operator")
    found = parts(kube, election)
    monkeypatch.setattr(election, "silent_seconds", lambda: 1.0)
    assert manager._ready(found) == []
    monkeypatch.setattr(election, "silent_seconds", lambda: 60.0)
    assert manager._ready(found) == ["the API server has not told for 60 s who leads"]
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
    found = Parts(settings, asyncio.Event(), FakeKube({}), None, KINDS, Environment(""), ObjectMetrics())
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
