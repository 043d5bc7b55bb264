"""One reconciliation: what is written, in which order, and what becomes of what the API server refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.conditions import ConditionType, KindStatus, Reason
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.core.conditions import EventNote, conditions, failed
from finetune_operator.core.kinds import Finalizer, Kind
from finetune_operator.core.plan import Child, DeletionPlan, LeftBehind, Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.finetunejob.observe import observe
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, JOBS, Object
from finetune_operator.progress.store import ProgressStore
from finetune_operator.runtime.reconcile import reconcile
from finetune_operator.runtime.worker import Heartbeats, work
from finetune_operator.runtime.workqueue import WorkQueue
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import JOB_WIRE, NOW, earlier_conditions, job_status, merged

KEY = ObjectKey("FineTuneJob", "team-a", "router")
JOBS_PATH, PARENT_PATH = "/apis/batch/v1/namespaces/team-a/jobs", FINE_TUNE_JOBS.path("team-a", "router")
STATUS_PATH, EVENTS_PATH = f"{PARENT_PATH}/status", "/api/v1/namespaces/team-a/events"
PARENT: dict[str, Any] = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {
        "name": "router",
        "namespace": "team-a",
        "uid": "uid-1",
        "generation": 1,
        "resourceVersion": "7",
        "managedFields": [{"manager": "finetune-operator", "operation": "Apply", "subresource": "status"}],
    },
    "spec": JOB_WIRE,
}
STATUS = job_status(conditions=earlier_conditions(Reason.VALIDATING), observed_generation=1)
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
    f"POST {EVENTS_PATH}",
    f"PATCH {STATUS_PATH}",
]


def planning(plan: Plan[Any]) -> Kind:
    """A reconciler that decides on this plan, whatever there is."""

    async def nothing(kube: Kube, parent: Object) -> None:
        return None

    return Kind(FINE_TUNE_JOBS, FineTuneJobStatus, nothing, lambda observed, now: plan)


def kube_with(parent: Mapping[str, Any] = PARENT, refused: Mapping[str, ApiError] | None = None) -> FakeKube:
    return FakeKube({f"GET {PARENT_PATH}": dict(parent), **(refused or {})})


def parent_with(status: FineTuneJobStatus) -> dict[str, Any]:
    return {**PARENT, "status": {name: value for name, value in status.to_wire().items() if value not in ([], {})}}


async def test_writes_come_in_the_order_that_a_crash_may_cut_anywhere() -> None:
    kube = kube_with()
    assert await reconcile(kube, planning(PLAN), KEY) is None
    assert kube.writes == EVERYTHING


async def test_the_status_is_for_the_object_as_it_was_read_and_holds_nothing_empty() -> None:
    kube = kube_with()
    await reconcile(kube, planning(PLAN), KEY)
    (written,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert written is not None
    assert written["metadata"] == {"name": "router", "namespace": "team-a", "uid": "uid-1", "resourceVersion": "7"}
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

    reconciler = Kind(FINE_TUNE_JOBS, FineTuneJobStatus, planning(PLAN).observe, in_a_minute)
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
    assert (stalled["status"], stalled["reason"]) == ("True", "QuotaExceeded")
    assert "exceeded quota: gpus, requested: 8, limited: 4" in stalled["message"]
    assert kube.writes == [f"POST {JOBS_PATH}", f"POST {EVENTS_PATH}", f"PATCH {STATUS_PATH}"]


@pytest.mark.parametrize("code", [0, 409, 429, 500, 503])
@pytest.mark.parametrize("step", [0, 1, 2, 4])
async def test_what_fails_for_now_is_raised_and_nothing_more_is_written(code: int, step: int) -> None:
    failing = EVERYTHING[step]
    kube = kube_with(refused={failing: ApiError(code, "Busy", "later")})
    if failing.startswith("DELETE") and code == 409:  # replaced by another object of that name: nothing to delete
        await reconcile(kube, planning(PLAN), KEY)
        assert kube.writes == EVERYTHING
        return
    with pytest.raises(ApiError):
        await reconcile(kube, planning(PLAN), KEY)
    assert kube.writes == EVERYTHING[: step + 1]


async def test_an_event_that_cannot_be_recorded_does_not_matter() -> None:
    kube = kube_with(refused={f"POST {EVENTS_PATH}": ApiError(403, "Forbidden", "no events here")})
    await reconcile(kube, planning(PLAN), KEY)
    assert kube.writes == EVERYTHING


async def test_an_event_is_tried_a_few_times_and_does_not_keep_the_status_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.runtime.events.EVENT_PAUSES", (0, 0))
    *before, event, status = EVERYTHING
    for failures in (1, 2, 3):
        answers: Any = [ApiError(500, "", "its store is down")] * failures + [{}]
        kube = FakeKube({f"GET {PARENT_PATH}": PARENT, event: answers})
        await reconcile(kube, planning(PLAN), KEY)
        assert kube.writes == [*before, *[event] * min(failures + 1, 3), status]


async def test_an_event_that_hangs_does_not_keep_the_status_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.runtime.events.EVENT_SECONDS", 0.05)

    class Hanging(FakeKube):
        async def create_once(self, body: Object) -> None:
            if body["kind"] == "Event":
                await asyncio.sleep(5)
            await super().create_once(body)

    kube = Hanging({f"GET {PARENT_PATH}": PARENT})
    await asyncio.wait_for(reconcile(kube, planning(PLAN), KEY), 3)
    assert kube.writes == [line for line in EVERYTHING if line != f"POST {EVENTS_PATH}"]


def event_names(kube: FakeKube) -> list[str]:
    return [
        str(request.body["metadata"]["name"])
        for request in kube.requests
        if request.line == f"POST {EVENTS_PATH}" and request.body
    ]


async def test_an_event_is_recorded_once_for_each_change_however_often_it_is_tried() -> None:
    """Of two tries that saw the same object the second finds the first one's Event; a later change is another one."""
    kube = kube_with()
    await reconcile(kube, planning(PLAN), KEY)
    await reconcile(kube, planning(PLAN), KEY)
    changed = kube_with({**PARENT, "metadata": {**PARENT["metadata"], "resourceVersion": "8"}})
    await reconcile(changed, planning(PLAN), KEY)
    first, second = event_names(kube)
    assert first == second
    assert event_names(changed) != [first]
    again = kube_with(refused={f"POST {EVENTS_PATH}": ApiError(409, "AlreadyExists", "it is there")})
    await reconcile(again, planning(PLAN), KEY)
    assert again.writes == EVERYTHING


@dataclass
class Heard:
    """Metrics that keep what they are told."""

    said: list[Any] = field(default_factory=list)

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        self.said.append((key, before, after))

    def gone(self, key: ObjectKey) -> None:
        self.said.append((key, "gone"))

    def collect(self) -> list[Any]:
        return []


async def test_metrics_hear_of_what_was_written_and_of_what_is_gone() -> None:
    metrics = Heard()
    listening = replace(planning(PLAN), metrics=(metrics,))
    before = job_status(observed_generation=0)
    await reconcile(kube_with(parent_with(before)), listening, KEY)
    await reconcile(FakeKube(), listening, KEY)
    assert metrics.said == [(KEY, before, STATUS), (KEY, "gone")]
    with pytest.raises(ApiError):
        await reconcile(kube_with(refused={f"PATCH {STATUS_PATH}": ApiError(500, "", "later")}), listening, KEY)
    assert len(metrics.said) == 2


# Finalizers.

FINALIZER = "finetune.dev/storage"
CLASS_EVENTS_PATH = "/api/v1/namespaces/default/events"
DELETED = "2026-11-22T12:00:00Z"
LEFT = LeftBehind("cpu", EventNote("Warning", "StorageKept", "s3://models/finetune stays: the namespace was deleted."))


def holding(needed: bool | None = True, deletion: DeletionPlan[Any] | None = None, plan: Plan[Any] = PLAN) -> Kind:
    """A reconciler of objects that hold something outside the cluster."""
    reconciler = planning(plan)
    finalizer = Finalizer(
        FINALIZER, lambda observed: needed, reconciler.observe, lambda observed, now: deletion or DeletionPlan(PLAN)
    )
    return replace(reconciler, finalizer=finalizer)


def parent_that(**metadata: Any) -> dict[str, Any]:
    return {**PARENT, "metadata": {**PARENT["metadata"], **metadata}}


@pytest.mark.parametrize(
    ("needed", "held", "applied"),
    [
        (True, [], [FINALIZER]),
        (True, [FINALIZER], None),
        (False, ["argocd.argoproj.io/finalizer", FINALIZER], ["argocd.argoproj.io/finalizer"]),
        (False, [FINALIZER, "argocd.argoproj.io/finalizer", FINALIZER], ["argocd.argoproj.io/finalizer"]),
        (True, ["argocd.argoproj.io/finalizer"], ["argocd.argoproj.io/finalizer", FINALIZER]),
        (False, ["argocd.argoproj.io/finalizer"], None),
        (None, [FINALIZER], None),
        (None, [], None),
    ],
    ids=[
        "put",
        "stands",
        "taken away",
        "every entry of it",
        "put beside another",
        "not there",
        "no class, it stays",
        "no class, none",
    ],
)
async def test_the_finalizer_stands_while_it_is_needed(
    needed: bool | None, held: list[str], applied: list[str] | None
) -> None:
    kube = kube_with(parent_that(finalizers=held))
    await reconcile(kube, holding(needed), KEY)
    written = [request for request in kube.requests if request.line == f"PATCH {PARENT_PATH}"]
    if applied is None:
        assert written == []
        return
    (request,) = written
    assert kube.writes == [request.line, *EVERYTHING], "it stands before anything is made that could write"
    assert request.query["fieldManager"] == "finetune-operator-storage"
    assert request.body is not None
    assert request.body["metadata"].get("finalizers", []) == applied
    assert "spec" not in request.body
    assert (request.body["metadata"]["uid"], request.body["metadata"]["resourceVersion"]) == ("uid-1", "7")


async def test_a_deleted_object_without_the_finalizer_is_left_alone() -> None:
    kube = kube_with(parent_that(deletionTimestamp=DELETED, finalizers=["argocd.argoproj.io/finalizer"]))
    assert await reconcile(kube, holding(), KEY) is None
    assert kube.writes == []


async def test_a_farewell_is_carried_out_like_any_plan_and_keeps_the_finalizer() -> None:
    kube = kube_with(parent_that(deletionTimestamp=DELETED, finalizers=[FINALIZER]))
    await reconcile(kube, holding(), KEY)
    assert kube.writes == EVERYTHING


@pytest.mark.parametrize("left_behind", [None, LEFT], ids=["nothing stays", "something stays"])
async def test_the_finalizer_goes_last_and_the_class_tells_what_stays(left_behind: LeftBehind | None) -> None:
    kube = kube_with(parent_that(deletionTimestamp=DELETED, finalizers=[FINALIZER]))
    last = Plan(status=STATUS, delete=PLAN.delete)
    await reconcile(kube, holding(deletion=DeletionPlan(last, release=True, left_behind=left_behind)), KEY)
    told = [f"POST {CLASS_EVENTS_PATH}"] if left_behind else []
    assert kube.writes == [f"DELETE {JOBS_PATH}/old", *told, f"PATCH {PARENT_PATH}"]
    if left_behind:
        (event,) = [request.body for request in kube.requests if request.line == told[0]]
        assert event is not None
        assert event["involvedObject"] == {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneClass",
            "name": "cpu",
        }
        assert (event["type"], event["reason"], event["message"]) == ("Warning", "StorageKept", LEFT.note.message)


async def test_a_finalizer_that_stands_still_is_not_told_as_released() -> None:
    """A webhook put it back: the object is looked at again, and what stays is not said to be gone."""
    deleted = parent_that(deletionTimestamp=DELETED, finalizers=[FINALIZER])
    kube = FakeKube({f"GET {PARENT_PATH}": deleted, f"PATCH {PARENT_PATH}": deleted})
    with pytest.raises(ApiError, match="stands on 'router' still"):
        await reconcile(kube, holding(deletion=DeletionPlan(Plan(status=STATUS), release=True)), KEY)


async def test_the_status_follows_the_finalizer() -> None:
    """The object has another version once it holds the finalizer: the status is for that one."""
    holds = parent_that(finalizers=[FINALIZER], resourceVersion="8")
    kube = FakeKube({f"GET {PARENT_PATH}": parent_that(), f"PATCH {PARENT_PATH}": holds})
    await reconcile(kube, holding(), KEY)
    (written,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert written is not None
    assert written["metadata"]["resourceVersion"] == "8"


async def test_a_stored_spec_that_does_not_parse_names_the_field() -> None:
    """As one that was stored before a rule was added."""
    broken = {**PARENT, "spec": merged(JOB_WIRE, {"retryLimit": "many"})}
    store = ProgressStore()

    async def observe_job(kube: Kube, parent: Object) -> Any:
        return await observe(
            kube, parent, trainer_image=None, progress=store, endpoint=None, ledger_namespace="default"
        )

    kube = kube_with(broken)
    await reconcile(kube, Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN), KEY)
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert "retryLimit: Input should be a valid integer" in stalled["message"]


async def test_a_model_that_a_plan_gets_wrong_is_a_bug_and_no_fault_of_the_spec() -> None:
    def wrong(observed: Any, now: datetime) -> Plan[Any]:
        return replace(PLAN, status=FineTuneJobStatus.model_validate({"phase": 7}))

    kube = kube_with()
    with pytest.raises(ValidationError):
        await reconcile(kube, replace(planning(PLAN), plan=wrong), KEY)
    assert kube.writes == []


OVER = FineTuneJobStatus(
    phase="Failed", conditions=conditions(failed(Reason.DATASET_INVALID, "Line 7."), [], generation=1, now=NOW)
)


@pytest.mark.parametrize("how", ["the spec does not parse", "the API server refuses"])
async def test_a_run_that_is_over_keeps_its_condition_failed(how: str) -> None:
    before = {**PARENT, "metadata": {**PARENT["metadata"], "generation": 2}, "status": OVER.to_wire()}
    if how == "the API server refuses":
        refusal = ApiError(403, "Forbidden", "denied by a webhook")
        kube, reconciler = kube_with(before, refused={f"POST {JOBS_PATH}": refusal}), planning(PLAN)
    else:

        async def observe_job(kube: Kube, parent: Object) -> Any:
            return FineTuneJobSpec.from_wire({"model": 7})

        kube = kube_with(before)
        reconciler = Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN)
    await reconcile(kube, reconciler, KEY)
    written = conditions_written(kube)
    assert (written["Failed"]["status"], written["Failed"]["reason"]) == ("True", "DatasetInvalid")
    assert written["Stalled"]["reason"] != "DatasetInvalid"


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


# Statuses of other versions.


async def plan_on(parent: dict[str, Any]) -> FakeKube:
    kube = kube_with(parent)
    await reconcile(kube, planning(PLAN), KEY)
    return kube


@pytest.mark.parametrize("strange", [{"phase": "Levitating"}, {"startTime": "soon"}, {"attempt": {"number": "one"}}])
async def test_on_a_status_that_can_not_be_read_nothing_is_written_but_a_condition(strange: dict[str, Any]) -> None:
    stored = {**STATUS.to_wire(), **strange}
    kube = await plan_on({**PARENT, "status": stored})
    assert kube.writes == [f"POST {EVENTS_PATH}", f"PATCH {STATUS_PATH}"], "nothing starts"
    request = kube.requests[-1]
    assert request.query["fieldManager"] == "finetune-operator-conditions"
    assert request.body is not None
    assert list(request.body["status"]) == ["conditions"]
    (condition,) = request.body["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Stalled", "True", "StatusUnreadable")
    told = await plan_on({**PARENT, "status": {**stored, "conditions": [condition]}})
    assert told.writes == [], "it is told once"


async def test_a_spec_that_does_not_parse_leaves_the_status_as_it_is() -> None:
    """The status is of another version, and the spec of another one still."""
    stored = {**STATUS.to_wire(), "addedLater": {"a": []}, "runId": "1"}
    broken = {**PARENT, "spec": {"model": 7}, "status": stored}

    async def observe_job(kube: Kube, parent: Object) -> Any:
        return FineTuneJobSpec.from_wire(parent["spec"])

    kube = kube_with(broken)
    await reconcile(kube, Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN), KEY)
    assert kube.requests[-1].body is not None
    written = kube.requests[-1].body["status"]
    kept = {name: value for name, value in stored.items() if name != "conditions" and value != []}
    assert {name: value for name, value in written.items() if name != "conditions"} == kept
