"""A run whose Pods start at once is never stored as Queued. What the operator only remembers may be lost with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import groupby
from typing import Any

import pytest

from e2e.cluster.machine.ports import free_ports
from finetune_operator.finetunejob.policies import attempt
from finetune_operator.kube.client import Kube
from finetune_operator.runtime.manager import run
from finetune_operator.settings import Settings
from tests.integration.operator import played
from tests.integration.operator.api import Api, namespace
from tests.integration.operator.jobs import JOB, preflight_succeeds, starts_training
from tests.integration.operator.lives import Stage


@pytest.fixture
def alone(quiet_stage: Stage) -> Iterator[Api]:
    """A namespace where no operator runs but the test's own."""
    with namespace(quiet_stage.plane) as api:
        yield api


@contextlib.asynccontextmanager
async def an_operator(stage: Stage) -> AsyncIterator[None]:
    """One in this process."""
    health, metrics = free_ports(2)
    settings = Settings(
        kubeconfig=stage.plane.kubeconfig,
        trainer_image="example.com/trainer:1",
        health_port=health,
        metrics_port=metrics,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await running


@pytest.fixture
def writes(alone: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the operator of this process writes in the namespace, with the phase of a status."""
    found: list[str] = []
    request = Kube._request

    async def seen(kube: Kube, method: str, path: str, **options: Any) -> Any:
        if method != "GET" and f"/namespaces/{alone.namespace}/" in path:
            phase = (options.get("body") or {}).get("status", {}).get("phase", "")
            found.append(f"{method} {path.partition(f'/namespaces/{alone.namespace}/')[2]} {phase}".rstrip())
        return await request(kube, method, path, **options)

    patched: Callable[..., Awaitable[Any]] = seen
    monkeypatch.setattr(Kube, "_request", patched)
    return found


async def test_between_validating_and_training_no_status_is_written(
    quiet_stage: Stage, alone: Api, writes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "QUEUED_SECONDS", 600.0)
    async with an_operator(quiet_stage):
        job = await asyncio.to_thread(alone.create, "FineTuneJob", "router", JOB)
        await asyncio.to_thread(starts_training, alone, job)
    # A preflight Pod that waits for a while is told in a status of the same phase.
    written = [line for line, _ in groupby(line for line in writes if "finetunejobs" in line or "events" in line)]
    status = "PATCH finetunejobs/router/status"
    assert written == [f"{status} Validating", "POST events", f"{status} Training"]
    stored = alone.get("FineTuneJob", "router")["status"]
    assert (stored["attempt"]["number"], stored["attempt"]["state"]) == (1, "Running")
    assert stored["preflight"]["succeeded"] and stored["dataset"]["training"]["examples"] == 1500


async def test_pods_that_take_longer_are_queued(quiet_stage: Stage, alone: Api) -> None:
    async with an_operator(quiet_stage):
        job = await asyncio.to_thread(alone.create, "FineTuneJob", "router", JOB)
        await asyncio.to_thread(preflight_succeeds, alone, job)
        queued = await asyncio.to_thread(alone.wait_reason, "FineTuneJob", "router", "Queued")
    assert queued["status"]["attempt"]["state"] == "Pending"


async def test_an_operator_that_dies_before_it_wrote_the_status_starts_nothing_twice(
    quiet_stage: Stage, alone: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "QUEUED_SECONDS", 600.0)
    job = alone.create("FineTuneJob", "router", JOB)
    async with an_operator(quiet_stage):
        before = await asyncio.to_thread(preflight_succeeds, alone, job)
    assert "attempt" not in alone.get("FineTuneJob", "router")["status"], "only the operator knew of it"
    async with an_operator(quiet_stage):
        for pod in await asyncio.to_thread(alone.wait_children, job, "train", "Pod", 2):
            played.runs(alone, pod)
        found = await asyncio.to_thread(alone.wait_reason, "FineTuneJob", "router", "Training")
    assert found["status"]["attempt"]["number"] == 1
    (same,) = alone.children_of(job, "train", "Job")
    assert same["metadata"]["uid"] == before["metadata"]["uid"]
    assert len(alone.children_of(job, "preflight", "Pod")) == 1
