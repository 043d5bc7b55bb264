"""One reconciliation: what is written, in which order, and what becomes of what the API server refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.controller import Heartbeats, work
from finetune_operator.finetunejob.observe import observe
from finetune_operator.kube import FINE_TUNE_JOBS, JOBS, ApiError, Kube, Object
from finetune_operator.plan import Child, Plan
from finetune_operator.progress import ProgressStore
from finetune_operator.reconcile import Reconciler, reconcile
from finetune_operator.references import ObjectKey
from finetune_operator.status import EventNote
from finetune_operator.workqueue import WorkQueue
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import JOB_WIRE, job_status, merged, standing_conditions

KEY = ObjectKey("FineTuneJob", "team-a", "router")
JOBS_PATH, PARENT_PATH = "/apis/batch/v1/namespaces/team-a/jobs", FINE_TUNE_JOBS.path("team-a", "router")
STATUS_PATH, EVENTS_PATH = f"{PARENT_PATH}/status", "/api/v1/namespaces/team-a/events"
PARENT: dict[str, Any] = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "router", "namespace": "team-a", "uid": "uid-1", "generation": 1, "resourceVersion": "7"},
    "spec": JOB_WIRE,
}
STATUS = job_status(conditions=standing_conditions(Reason.VALIDATING), observed_generation=1)
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "new", "namespace": "team-a"}}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "router", "namespace": "team-a"}}
PLAN = Plan(
    status=STATUS,
    create=(JOB,),
    apply=(SERVICE,),
    delete=(Child(JOBS, "team-a", "old", "uid-2"),),
    events=(EventNote("Normal", "Validating", "The preflight Pod reads the dataset."),),
)
EVERYTHING = [
    f"POST {JOBS_PATH}",
    "PATCH /api/v1/namespaces/team-a/services/router",
    f"DELETE {JOBS_PATH}/old",
    f"PATCH {STATUS_PATH}",
    f"POST {EVENTS_PATH}",
]


def planning(plan: Plan[Any]) -> Reconciler:
    """A reconciler that decides on this plan, whatever there is."""

    async def nothing(kube: Kube, parent: Object) -> None:
        return None

    return Reconciler(FINE_TUNE_JOBS, FineTuneJobStatus, nothing, lambda observed, now: plan)


def kube_with(parent: Mapping[str, Any] = PARENT, refused: Mapping[str, ApiError] | None = None) -> FakeKube:
    return FakeKube({f"GET {PARENT_PATH}": dict(parent), **(refused or {})})


def parent_with(status: FineTuneJobStatus) -> dict[str, Any]:
    return {**PARENT, "status": {name: value for name, value in status.to_wire().items() if value not in ([], {})}}


async def test_writes_come_in_the_order_that_a_crash_may_cut_anywhere() -> None:
    kube = kube_with()
    assert await reconcile(kube, planning(PLAN), KEY) is None
    assert kube.writes == EVERYTHING


async def test_the_status_is_guarded_by_the_parents_uid_and_holds_nothing_empty() -> None:
    kube = kube_with()
    await reconcile(kube, planning(PLAN), KEY)
    (written,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert written is not None
    assert written["metadata"] == {"name": "router", "namespace": "team-a", "uid": "uid-1"}
    assert "checkpoints" not in written["status"]
    assert [condition["type"] for condition in written["status"]["conditions"]] == ["Ready", "Stalled"]


async def test_a_status_that_is_what_it_was_is_not_written_and_tells_no_event() -> None:
    kube = kube_with(parent_with(STATUS))
    await reconcile(kube, planning(Plan(status=STATUS, events=PLAN.events)), KEY)
    assert kube.writes == []


@pytest.mark.parametrize("metadata", [None, {"deletionTimestamp": "2026-11-22T12:00:00Z"}], ids=["gone", "going"])
async def test_an_object_that_is_deleted_is_left_alone(metadata: dict[str, Any] | None) -> None:
    kube = FakeKube() if metadata is None else kube_with({**PARENT, "metadata": {**PARENT["metadata"], **metadata}})
    assert await reconcile(kube, planning(PLAN), KEY) is None
    assert kube.writes == []


async def test_it_comes_again_when_the_plan_says() -> None:
    def in_a_minute(observed: Any, now: Any) -> Plan[FineTuneJobStatus]:
        return Plan(status=STATUS, requeue_at=now + timedelta(seconds=60))

    reconciler = Reconciler(FINE_TUNE_JOBS, FineTuneJobStatus, planning(PLAN).observe, in_a_minute)
    assert await reconcile(kube_with(), reconciler, KEY) == pytest.approx(60, abs=1)


def conditions_written(kube: FakeKube) -> dict[str, dict[str, Any]]:
    (body,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert body is not None
    return {condition["type"]: condition for condition in body["status"]["conditions"]}


@pytest.mark.parametrize("code", [400, 403, 422])
async def test_what_the_api_server_refuses_is_told_and_tried_again_in_a_minute(code: int) -> None:
    refusal = ApiError(code, "Forbidden", "pods is forbidden: exceeded quota: gpus, requested: 8, limited: 4")
    kube = kube_with(parent_with(STATUS), refused={f"POST {JOBS_PATH}": refusal})
    assert await reconcile(kube, planning(PLAN), KEY) == 60
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "PodRejected")
    assert "exceeded quota: gpus, requested: 8, limited: 4" in stalled["message"]
    assert kube.writes == [f"POST {JOBS_PATH}", f"PATCH {STATUS_PATH}", f"POST {EVENTS_PATH}"]


@pytest.mark.parametrize("code", [0, 409, 429, 500, 503])
@pytest.mark.parametrize("step", range(4))
async def test_what_fails_for_now_is_raised_and_nothing_more_is_written(code: int, step: int) -> None:
    failing = EVERYTHING[step]
    if failing.startswith("DELETE") and code == 409:
        return  # Replaced by another object of that name: nothing to delete.
    kube = kube_with(refused={failing: ApiError(code, "Busy", "later")})
    with pytest.raises(ApiError):
        await reconcile(kube, planning(PLAN), KEY)
    assert kube.writes == EVERYTHING[: step + 1]


async def test_an_event_that_cannot_be_recorded_does_not_matter() -> None:
    kube = kube_with(refused={f"POST {EVENTS_PATH}": ApiError(403, "Forbidden", "no events here")})
    await reconcile(kube, planning(PLAN), KEY)
    assert kube.writes == EVERYTHING


async def test_a_stored_spec_that_does_not_parse_names_the_field() -> None:
    """As one that was stored before a rule was added."""
    broken = {**PARENT, "spec": merged(JOB_WIRE, {"retryLimit": "many"})}
    store = ProgressStore()

    async def observe_job(kube: Kube, parent: Object) -> Any:
        return await observe(kube, parent, trainer_image=None, progress=store, endpoint=None)

    kube = kube_with(broken)
    await reconcile(kube, Reconciler(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN), KEY)
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert "retryLimit: Input should be a valid integer" in stalled["message"]


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


async def worked(kube: FakeKube, reconciler: Reconciler) -> OneRound:
    """One worker takes the key once; returns the queue afterwards."""
    queue = OneRound()
    queue.add(KEY)
    worker = asyncio.create_task(work(0, queue, kube, {KEY.kind: reconciler}, Heartbeats()))
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
    reconciler = Reconciler(FINE_TUNE_JOBS, FineTuneJobStatus, planning(PLAN).observe, plan)
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
    monkeypatch.setattr("finetune_operator.controller.time.monotonic", lambda: now)
    beats = Heartbeats()
    assert beats.longest_seconds() == 0
    beats.started(1)
    now = 130.0
    beats.started(2)
    now = 140.0
    assert beats.longest_seconds() == 40
    beats.finished(1)
    assert beats.longest_seconds() == 10
