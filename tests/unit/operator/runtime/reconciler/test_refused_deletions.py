"""The API server refuses to delete a child: what still runs holds the status back, what has ended does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.plan import Child, Plan
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import CONFIG_MAPS, JOBS
from finetune_operator.runtime.reconciler.reconcile import reconcile
from finetune_operator.runtime.reconciler.rejections import may_run
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import (
    EVENTS_PATH,
    JOBS_PATH,
    KEY,
    PARENT,
    PARENT_PATH,
    PLAN,
    STATUS,
    STATUS_PATH,
    conditions_written,
    planning,
)
from tests.unit.operator.states import earlier_conditions, job_status

RUNNING_JOB = {"kind": "Job", "metadata": {"name": "old"}, "status": {"active": 1}}
ENDED_JOB = {**RUNNING_JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
KEPT = ApiError(403, "Forbidden", "admission webhook denied the request: keep jobs")


def guarded(before: FineTuneJobStatus, job: dict[str, Any]) -> FakeKube:
    """The API server refuses to delete the Job `old`."""
    stored = {name: value for name, value in before.to_wire().items() if value not in ([], {})}
    parent = {**PARENT, "status": stored}
    jobs = {"items": [job]}
    return FakeKube({f"GET {PARENT_PATH}": parent, f"GET {JOBS_PATH}": jobs, f"DELETE {JOBS_PATH}/old": KEPT})


def status_written(kube: FakeKube) -> dict[str, Any]:
    (body,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert body is not None
    return dict(body["status"])


async def test_a_deletion_that_is_refused_is_reported_and_what_would_follow_from_it_is_not_recorded() -> None:
    """A webhook guards Jobs: the Pods go on, so the run is not Suspended or over, and each other child is deleted."""
    before = job_status(conditions=earlier_conditions(Reason.TRAINING), phase="Training", observed_generation=1)
    stopping = before.model_copy(update={"phase": "Suspended"})
    children = (Child(JOBS, "team-a", "old", "uid-2"), Child(JOBS, "team-a", "older", "uid-3"))
    kube = guarded(before, RUNNING_JOB)
    assert await reconcile(kube, planning(Plan(status=stopping, delete=children)), KEY) == 60
    assert f"DELETE {JOBS_PATH}/older" in kube.writes
    assert status_written(kube)["phase"] == "Training"
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "ObjectRejected")
    assert "refuses to delete Job old, which may still run: admission webhook denied" in stalled["message"]
    assert stalled["message"].endswith("or delete it yourself. Tried again every minute.")


async def test_a_run_that_can_not_begin_since_a_deletion_is_refused_is_reported_in_the_conditions() -> None:
    """The run before is over, and its Job can't be deleted."""
    over = job_status(conditions=earlier_conditions(Reason.CANCELLED), phase="Cancelled", observed_generation=1)
    kube = guarded(over, RUNNING_JOB)
    begun = replace(PLAN, status=job_status(phase="Validating"))
    next_run = replace(planning(begun), is_finished=lambda status: status.phase == "Cancelled")
    assert await reconcile(kube, next_run, KEY) == 60
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "ObjectRejected")


async def test_what_has_ended_and_can_not_be_deleted_holds_no_status_back() -> None:
    """An old Job that is only cleared away: an Event tells of it, and the run's status goes on."""
    before = job_status(conditions=earlier_conditions(Reason.RETRYING), phase="Retrying", observed_generation=1)
    training = before.model_copy(update={"phase": "Training"})
    kube = guarded(before, ENDED_JOB)
    made = Plan(status=training, delete=(Child(JOBS, "team-a", "old", "uid-2"),))
    assert await reconcile(kube, planning(made), KEY) == 60
    assert status_written(kube)["phase"] == "Training"
    (event,) = [request.body for request in kube.requests if request.line == f"POST {EVENTS_PATH}"]
    assert event is not None
    assert "refuses to delete Job old: admission webhook denied" in event["message"]


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "deleted"])
async def test_what_a_job_needs_is_deleted_after_it_and_kept_with_it(is_refused: bool) -> None:
    """Its Pod may not have started yet, and then reads its run configuration."""
    kube = guarded(STATUS, RUNNING_JOB)
    needed = Child(CONFIG_MAPS, "team-a", "old", None)
    child = Child(JOBS, "team-a", "old" if is_refused else "other", "uid-2", then=(needed,))
    await reconcile(kube, planning(replace(PLAN, delete=(child,))), KEY)
    deleted = [line for line in kube.writes if line.startswith("DELETE")]
    config_map = f"DELETE {CONFIG_MAPS.path('team-a', 'old')}"
    assert deleted == [f"DELETE {JOBS_PATH}/old"] if is_refused else [f"DELETE {JOBS_PATH}/other", config_map]


async def test_of_a_run_that_is_over_an_event_says_that_a_deletion_is_refused() -> None:
    """Its conditions say how it ended. The status has been observed at this generation all the same."""
    kube = guarded(STATUS.model_copy(update={"observed_generation": 0}), RUNNING_JOB)
    over = replace(planning(Plan(status=STATUS, delete=PLAN.delete)), is_finished=lambda status: True)
    assert await reconcile(kube, over, KEY) == 60
    assert kube.writes == [f"DELETE {JOBS_PATH}/old", f"POST {EVENTS_PATH}", f"PATCH {STATUS_PATH}"]
    assert status_written(kube)["observedGeneration"] == 1
    (event,) = [request.body for request in kube.requests if request.line == f"POST {EVENTS_PATH}"]
    assert event is not None
    assert (event["type"], event["reason"]) == ("Warning", "ObjectRejected")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (RUNNING_JOB, True),
        (ENDED_JOB, False),
        ({"kind": "Pod", "status": {"phase": "Running"}}, True),
        ({"kind": "Pod", "status": {"phase": "Pending"}}, True),
        ({"kind": "Pod", "status": {"phase": "Succeeded"}}, False),
        ({"kind": "Deployment"}, True),
        ({"kind": "ConfigMap"}, False),
        ({"kind": "PodDisruptionBudget"}, False),
    ],
    ids=str,
)
def test_what_may_still_run(item: dict[str, Any], expected: bool) -> None:
    assert may_run(item) == expected
