"""Workers: what a failure costs, what is counted, and that no object holds another one up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.plan import Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS
from finetune_operator.runtime.worker import Heartbeats, work
from finetune_operator.runtime.workqueue import WorkQueue
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import JOBS_PATH, KEY, PLAN, STATUS, kube_with, planning

OTHER = ObjectKey("FineTuneJob", "team-a", "other")


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"finetune_operator_{name}", {"kind": "FineTuneJob", **labels}) or 0.0


class Worker:
    """One worker whose reconciliations do what is given, one after the other, and then stop it."""

    leads = True

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], Awaitable[float | None]]) -> None:
        self.queue: WorkQueue[ObjectKey] = WorkQueue()
        self.heartbeats = Heartbeats()
        self.reconciled: list[ObjectKey] = []
        remaining = list(steps)

        async def reconcile(kube: Any, reconciler: Any, key: ObjectKey) -> float | None:
            self.reconciled.append(key)
            again = await remaining.pop(0)()
            if not remaining:
                self.queue.shut_down()
            return again

        monkeypatch.setattr("finetune_operator.runtime.worker.reconcile", reconcile)

    async def run(self) -> None:
        table: Any = {"FineTuneJob": None}
        await asyncio.wait_for(work(0, self.queue, FakeKube(), table, self.heartbeats, lambda: self.leads), 10)


async def succeed() -> float | None:
    return None


async def again_soon() -> float | None:
    return 0.01


def fail(error: BaseException) -> Callable[[], Awaitable[float | None]]:
    async def failing() -> float | None:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "result", "code"),
    [
        (ApiError(500, "InternalError", "etcd"), "error", "500"),
        (ApiError(0, "ConnectionRefused", ""), "error", "0"),
        (TimeoutError(), "error", "timeout"),
        (KeyError("status"), "bug", "bug"),
    ],
)
async def test_what_fails_comes_again_and_is_counted_by_its_cause(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, result: str, code: str
) -> None:
    counted = [
        lambda: sample("reconciliations_total", result=result),
        lambda: sample("reconcile_errors_total", code=code),
        lambda: sample("queue_retries_total"),
        lambda: sample("reconciliations_total", result="ok"),
    ]
    before = [count() for count in counted]
    worker = Worker(monkeypatch, fail(error), succeed)
    worker.queue.add(KEY)
    await worker.run()
    assert worker.reconciled == [KEY, KEY]
    assert [count() - old for count, old in zip(counted, before, strict=True)] == [1, 1, 1, 1]
    assert "FineTuneJob" in worker.heartbeats.last_success
    assert worker.heartbeats.longest_seconds() == 0


async def test_a_bug_at_one_object_does_not_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, fail(RuntimeError("bug")), succeed, succeed)
    worker.queue.add(KEY)
    worker.queue.add(OTHER)
    await worker.run()
    assert worker.reconciled == [KEY, OTHER, KEY]


async def test_an_object_comes_again_when_its_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, again_soon, succeed)
    worker.queue.add(KEY)
    await worker.run()
    assert worker.reconciled == [KEY, KEY]


async def test_one_object_does_not_hold_a_worker_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.runtime.worker.RECONCILE_TIMEOUT_SECONDS", 0.01)

    async def hang() -> float | None:
        await asyncio.sleep(60)
        return None

    before = sample("reconcile_errors_total", code="timeout")
    worker = Worker(monkeypatch, hang, succeed)
    worker.queue.add(KEY)
    await worker.run()
    assert sample("reconcile_errors_total", code="timeout") == before + 1


async def test_a_worker_that_gets_sigterm_ends_what_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def slow() -> float | None:
        worker.queue.shut_down()
        await asyncio.sleep(0.05)
        ended.append("well")
        return 5.0

    worker = Worker(monkeypatch, slow)
    worker.queue.add(KEY)
    worker.queue.add(OTHER)
    await worker.run()
    assert (ended, worker.reconciled) == (["well"], [KEY])


async def test_a_worker_of_a_process_that_no_longer_leads_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, succeed)
    worker.leads = False
    worker.queue.add(KEY)
    await worker.run()
    assert worker.reconciled == []


class OneRound(WorkQueue[ObjectKey]):
    """Tells when the first key is done, and whether it is to come again after a failure or was forgiven."""

    def __init__(self) -> None:
        super().__init__()
        self.first_done = asyncio.Event()
        self.failed: list[ObjectKey] = []
        self.forgiven: list[ObjectKey] = []

    def add_rate_limited(self, key: ObjectKey) -> float:
        self.failed.append(key)
        return 1.0

    def forget(self, key: ObjectKey) -> None:
        self.forgiven.append(key)

    def done(self, key: ObjectKey) -> None:
        super().done(key)
        self.first_done.set()


async def worked(kube: FakeKube, kind: Kind) -> OneRound:
    """One worker takes the key once; returns the queue afterwards."""
    queue = OneRound()
    queue.add(KEY)
    worker = asyncio.create_task(work(0, queue, kube, {KEY.kind: kind}, Heartbeats(), lambda: True))
    await asyncio.wait_for(queue.first_done.wait(), 5)
    assert not worker.done(), "the worker goes on"
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    return queue


@pytest.mark.parametrize(
    "plan",
    [
        lambda observed, now: 1 / 0,
        lambda observed, now: Plan(status=STATUS, create=({"kind": "Nonsense", "apiVersion": "v1", "metadata": {}},)),
    ],
    ids=["a bug in a plan", "a bug in an object"],
)
async def test_a_bug_in_a_plan_or_in_an_object_is_a_failure_of_that_object_alone(plan: Any) -> None:
    reconciler = Kind(FINE_TUNE_JOBS, FineTuneJobStatus, planning(PLAN).observe, plan)
    queue = await worked(kube_with(), reconciler)
    assert (queue.failed, queue.forgiven) == ([KEY], [])


async def test_a_failing_api_server_is_asked_again_later() -> None:
    kube = kube_with(refused={f"POST {JOBS_PATH}": ApiError(503, "ServiceUnavailable", "etcd is electing")})
    queue = await worked(kube, planning(PLAN))
    assert (queue.failed, queue.forgiven) == ([KEY], [])


async def test_success_forgives_earlier_failures() -> None:
    queue = await worked(kube_with(), planning(PLAN))
    assert (queue.failed, queue.forgiven) == ([], [KEY])


def test_a_heartbeat_tells_how_long_the_slowest_worker_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("finetune_operator.runtime.worker.time.monotonic", lambda: now)
    beats = Heartbeats()
    assert beats.longest_seconds() == 0
    beats.started(1)
    now = 130.0
    beats.started(2)
    now = 140.0
    assert beats.longest_seconds() == 40
    beats.finished(1)
    assert beats.longest_seconds() == 10
