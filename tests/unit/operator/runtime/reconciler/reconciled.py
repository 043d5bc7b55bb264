"""A parent at the edge of a played API server, and what a reconciliation writes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import EventNote
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.plan import Child, Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, JOBS, Object
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import JOB_WIRE, earlier_conditions, job_status

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


def conditions_written(kube: FakeKube) -> dict[str, dict[str, Any]]:
    (body,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert body is not None
    return {condition["type"]: condition for condition in body["status"]["conditions"]}
