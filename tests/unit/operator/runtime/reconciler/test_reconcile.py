"""One reconciliation: what is written, in which order, and what becomes of what the API server refuses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.plan import Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, FINE_TUNE_SWEEPS, Object, Resource
from finetune_operator.runtime.reconciler.reconcile import OVERDUE_SECONDS, reconcile
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import (
    EVENTS_PATH,
    EVERYTHING,
    JOB,
    JOBS_PATH,
    KEY,
    PARENT,
    PARENT_PATH,
    PLAN,
    STATUS,
    STATUS_PATH,
    conditions_written,
    kube_with,
    planning,
)
from tests.unit.operator.states import job_status


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


@pytest.mark.parametrize(("seconds", "again"), [(0, 0), (-20, OVERDUE_SECONDS)])
async def test_a_time_that_is_over_does_not_bring_it_back_at_once(seconds: float, again: float) -> None:
    """Such a plan has seen that the time is over: it would say the same again and again. Now still means now."""

    def overdue(observed: Any, now: Any) -> Plan[FineTuneJobStatus]:
        return Plan(status=STATUS, requeue_at=now + timedelta(seconds=seconds))

    reconciler = Kind(FINE_TUNE_JOBS, FineTuneJobStatus, planning(PLAN).observe, overdue)
    assert await reconcile(kube_with(), reconciler, KEY) == again


@pytest.mark.parametrize("code", [400, 403, 422])
async def test_a_refusal_of_the_api_server_is_reported_and_retried_in_a_minute(code: int) -> None:
    refusal = ApiError(code, "Forbidden", "pods is forbidden: exceeded quota: gpus, requested: 8, limited: 4")
    kube = kube_with(parent_with(STATUS), refused={f"POST {JOBS_PATH}": refusal})
    assert await reconcile(kube, planning(PLAN), KEY) == 60
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "QuotaExceeded")
    assert "exceeded quota: gpus, requested: 8, limited: 4" in stalled["message"]
    assert stalled["message"].endswith("(resources, accelerator). Tried again every minute."), "it says once when"
    assert kube.writes == [f"POST {JOBS_PATH}", f"POST {EVENTS_PATH}", f"PATCH {STATUS_PATH}"]


async def test_a_webhook_that_does_not_answer_is_told_and_stalls_what_waits_for_it_if_it_stays_away() -> None:
    """It is somebody else's, and may only be restarting. As the API server says it (code 500)."""
    said = 'Internal error occurred: failed calling webhook "sidecars.mesh": Post "https://mesh/": connection refused'
    outage = ApiError(500, "InternalError", said)
    kube = kube_with(parent_with(STATUS), refused={f"POST {JOBS_PATH}": outage})
    assert await reconcile(kube, planning(PLAN), KEY) == 30
    told = conditions_written(kube)
    assert (told[ConditionType.READY]["reason"], told[ConditionType.STALLED]["status"]) == ("PodRejected", "False")
    assert said in told[ConditionType.READY]["message"]
    assert "has to answer again" in told[ConditionType.READY]["message"]
    body = next(request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}")
    assert body is not None
    still = kube_with({**PARENT, "status": body["status"]}, refused={f"POST {JOBS_PATH}": outage})
    assert await reconcile(still, planning(PLAN), KEY) == 30
    assert conditions_written(still)[ConditionType.STALLED]["status"] == "True"


@pytest.mark.parametrize("code", [401, 404, 409, 413, 429, 500, 503])
@pytest.mark.parametrize(
    "said",
    [
        'admission webhook "keep.example.com" denied the request: not now',
        "jobs 'router' is forbidden: ValidatingAdmissionPolicy 'keep' with binding 'keep' denied request: not now",
    ],
    ids=["webhook", "policy"],
)
async def test_what_admission_refuses_is_told_whatever_code_it_has_chosen(code: int, said: str) -> None:
    """A webhook may answer with any code from 400 on, a policy with four of them."""
    denied = ApiError(code, "Conflict", said)
    kube = kube_with(parent_with(STATUS), refused={f"POST {JOBS_PATH}": denied})
    assert await reconcile(kube, planning(PLAN), KEY) == 60
    assert said in conditions_written(kube)[ConditionType.STALLED]["message"]


@pytest.mark.parametrize(("creates_each", "tried"), [(False, 1), (True, 2)])
async def test_one_that_is_refused_keeps_back_only_what_needs_it(creates_each: bool, tried: int) -> None:
    refusal = ApiError(403, "Forbidden", "admission webhook denied the request: not these values")
    answers: Any = {f"GET {PARENT_PATH}": parent_with(STATUS), f"POST {JOBS_PATH}": [refusal, {}]}
    kube = FakeKube(answers)
    refused = replace(PLAN, create=(*PLAN.create, *PLAN.create), creates_each=creates_each)
    assert await reconcile(kube, planning(refused), KEY) == 60
    assert kube.writes == [*[f"POST {JOBS_PATH}"] * tried, f"POST {EVENTS_PATH}", f"PATCH {STATUS_PATH}"]
    assert "not these values" in conditions_written(kube)[ConditionType.STALLED]["message"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Service", "ObjectRejected"),
        ("ConfigMap", "ObjectRejected"),
        ("PodDisruptionBudget", "ObjectRejected"),
        ("FineTuneJob", "ObjectRejected"),
        ("Evaluation", "ObjectRejected"),
        ("Deployment", "PodRejected"),
    ],
)
async def test_a_refused_object_without_pods_of_its_own_is_not_called_a_pod(kind: str, reason: str) -> None:
    ours = dict.fromkeys(("FineTuneJob", "Evaluation"), "finetune.dev/v1alpha1")
    version = {"Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1", **ours}.get(kind, "v1")
    body = {"apiVersion": version, "kind": kind, "metadata": PARENT["metadata"]}
    group = "api/v1" if version == "v1" else f"apis/{version}"
    path = f"PATCH /{group}/namespaces/team-a/{kind.lower()}s/router"
    kube = kube_with(parent_with(STATUS), refused={path: ApiError(422, "Invalid", "spec.ports[1].name: Duplicate")})
    await reconcile(kube, planning(Plan(status=STATUS, apply=(body,))), KEY)
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    assert "spec.ports[1].name: Duplicate" in stalled["message"]


@pytest.mark.parametrize(("seconds", "is_told"), [(0, False), (20, False), (40, True)])
async def test_a_namespace_that_has_no_service_account_yet_is_tried_again_at_once(
    seconds: float, is_told: bool
) -> None:
    """Namespace and job are often applied together. Later than that, somebody has removed the account."""
    created = datetime.now(UTC) - timedelta(seconds=seconds)
    parent = parent_with(STATUS)
    parent["metadata"] = {**parent["metadata"], "creationTimestamp": f"{created:%Y-%m-%dT%H:%M:%SZ}"}
    said = 'error looking up service account team-a/default: serviceaccount "default" not found'
    kube = kube_with(parent, refused={f"POST {JOBS_PATH}": ApiError(403, "Forbidden", said)})
    if is_told:
        await reconcile(kube, planning(PLAN), KEY)
        assert conditions_written(kube)[ConditionType.STALLED]["reason"] == "PodRejected"
        return
    with pytest.raises(ApiError):
        await reconcile(kube, planning(PLAN), KEY)
    assert kube.writes == [f"POST {JOBS_PATH}"]


async def test_what_a_plan_recorded_is_stored_though_what_it_creates_is_refused() -> None:
    """A run has begun then: its activeDeadlineSeconds count from its start, and not from the next time it is tried."""
    begun = STATUS.model_copy(update={"run_id": "2"})
    refusal = ApiError(403, "Forbidden", "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0")
    kube = kube_with(parent_with(STATUS), refused={f"POST {JOBS_PATH}": refusal})
    await reconcile(kube, planning(replace(PLAN, if_refused=begun)), KEY)
    (body,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert body is not None
    assert body["status"]["runId"] == "2"
    assert conditions_written(kube)[ConditionType.STALLED]["reason"] == "QuotaExceeded"


async def test_what_must_be_recorded_before_it_exists_is_created_after_the_status() -> None:
    kube = kube_with()
    assert await reconcile(kube, planning(Plan(status=STATUS, create_recorded=(JOB,))), KEY) is None
    assert kube.writes == [f"PATCH {STATUS_PATH}", f"POST {JOBS_PATH}"]


async def test_a_refusal_of_what_is_recorded_is_left_to_the_next_plan() -> None:
    """Which creates it before it writes the status, and so reports it."""
    kube = kube_with(refused={f"POST {JOBS_PATH}": ApiError(403, "Forbidden", "exceeded quota: gpus")})
    assert await reconcile(kube, planning(Plan(status=STATUS, create_recorded=(JOB,))), KEY) == OVERDUE_SECONDS
    assert kube.writes == [f"PATCH {STATUS_PATH}", f"POST {JOBS_PATH}"]
    kube = kube_with(refused={f"POST {JOBS_PATH}": ApiError(500, "InternalError", "etcdserver: leader changed")})
    with pytest.raises(ApiError):
        await reconcile(kube, planning(Plan(status=STATUS, create_recorded=(JOB,))), KEY)


async def test_what_is_recorded_and_exists_already_is_looked_at_by_the_next_plan() -> None:
    """All its events may have come before the status named it: none would wake the parent any more."""
    exists = ApiError(409, "AlreadyExists", "it exists")
    kube = kube_with(refused={f"POST {JOBS_PATH}": exists})
    assert await reconcile(kube, planning(Plan(status=STATUS, create_recorded=(JOB,))), KEY) == OVERDUE_SECONDS


class Forgetting(FakeKube):
    """It notes what may be dropped."""

    forgotten: list[str]

    def forget_finished(self, resource: Resource, parent: Object) -> None:
        self.forgotten = [parent["metadata"]["name"]]


@pytest.mark.parametrize(("sweep", "forgotten"), [({}, []), ({"completionTime": "2026-11-27T12:00:00Z"}, ["router"])])
async def test_a_finished_trial_is_kept_in_memory_while_its_sweep_goes_on(
    sweep: dict[str, Any], forgotten: list[str]
) -> None:
    """The sweep reads it, and would have to ask the API server."""
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneSweep", "name": "rates", "uid": "uid-9"}
    metadata = {
        **PARENT["metadata"],
        "annotations": {"finetune.dev/owner": "FineTuneSweep/rates"},
        "ownerReferences": [{**owner, "controller": True}],
    }
    path = FINE_TUNE_SWEEPS.path("team-a", "rates")
    kube = Forgetting(
        {f"GET {PARENT_PATH}": {**parent_with(STATUS), "metadata": metadata}, f"GET {path}": {"status": sweep}}
    )
    kube.forgotten = []
    kind = replace(planning(Plan(status=STATUS)), is_finished=lambda status: True)
    await reconcile(kube, kind, KEY)
    assert kube.forgotten == forgotten


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
    monkeypatch.setattr("finetune_operator.runtime.reconciler.events.EVENT_PAUSES", (0, 0))
    *before, event, status = EVERYTHING
    for failures in (1, 2, 3):
        answers: Any = [ApiError(500, "", "its store is down")] * failures + [{}]
        kube = FakeKube({f"GET {PARENT_PATH}": PARENT, event: answers})
        await reconcile(kube, planning(PLAN), KEY)
        assert kube.writes == [*before, *[event] * min(failures + 1, 3), status]


async def test_an_event_that_hangs_does_not_keep_the_status_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.runtime.reconciler.events.EVENT_SECONDS", 0.05)

    class Hanging(FakeKube):
        async def create_once(self, body: Object) -> bool:
            if body["kind"] == "Event":
                await asyncio.sleep(5)
            return await super().create_once(body)

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
