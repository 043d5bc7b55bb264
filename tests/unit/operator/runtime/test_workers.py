"""Workers: a bug at one object ends none, and who fails comes again later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.kinds import Kind
from finetune_operator.core.plan import Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS
from finetune_operator.runtime.worker import Heartbeats, work
from finetune_operator.runtime.workqueue import WorkQueue
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciled import JOBS_PATH, KEY, PLAN, STATUS, kube_with, planning

# Workers.


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
async def test_a_bug_at_one_object_does_not_end_the_worker(plan: Any) -> None:
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
