"""Which plans are made from a live look at the children, because a watch that is open and silent would mislead them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.kind_definition import Kind, OwnedResource
from finetune_operator.core.plan import Plan
from finetune_operator.dataset.plan import plan as plan_dataset
from finetune_operator.evaluation.plan import plan as plan_evaluation
from finetune_operator.finetunejob import plan as of_jobs
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, FINE_TUNE_JOBS, JOBS, PODS, Object, Resource
from finetune_operator.retried_run.absence import rests_on_absence
from finetune_operator.runtime.reconciler.reconcile import reconcile
from tests.unit.operator.dataset_states import dataset_job, dataset_spec, dataset_status, observed_dataset
from tests.unit.operator.evaluation_states import (
    evaluation_job_name,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import KEY, PARENT, PARENT_PATH, PLAN
from tests.unit.operator.states import (
    NOW,
    ago,
    attempt_status,
    earlier_conditions,
    ended_attempt,
    job,
    job_spec,
    job_status,
    observed_job,
    pod,
    resolved_class,
    trained_status,
)

STOPPING = earlier_conditions(Reason.STOPPING)
NEW_IMAGE = replace(resolved_class(images={"trainer": "example.com/trainer:2"}), generation=2)


def asks(observed: Any, **changes: Any) -> bool:
    """Whether what is planned for this state is planned again from a live look."""
    observed = replace(observed, **changes)
    if hasattr(observed.spec, "candidates"):
        return rests_on_absence(observed, plan_evaluation(observed, NOW))
    if hasattr(observed.spec, "source"):
        return rests_on_absence(observed, plan_dataset(observed, NOW))
    return of_jobs.rests_on_absence(observed, of_jobs.plan(observed, NOW))


RETRIED = {
    "Evaluation": observed_evaluation(evaluation_status(phase="Retrying", retry_time=ago(1))),
    "Dataset": observed_dataset(dataset_status(phase="Retrying", retry_time=ago(1))),
}
RUNNING = {
    "Evaluation": observed_evaluation(evaluation_status(), job(evaluation_job_name(), digest="as it was")),
    "Dataset": observed_dataset(dataset_status(), job(dataset_job(), digest="as it was")),
}
SUSPENDED = {"Evaluation": evaluation_spec(suspend=True), "Dataset": dataset_spec(suspend=True)}
CANCELLED = {"Evaluation": evaluation_spec(cancel=True), "Dataset": dataset_spec(cancel=True)}
KINDS = pytest.mark.parametrize("kind", ["Evaluation", "Dataset"])


@pytest.mark.parametrize("first", [observed_evaluation(), observed_dataset(), observed_job(FineTuneJobStatus())])
def test_the_first_start_of_a_life_needs_no_live_look(first: Any) -> None:
    assert not asks(first)


@KINDS
def test_another_try_starts_upon_a_live_look(kind: str) -> None:
    assert asks(RETRIED[kind])


@KINDS
@pytest.mark.parametrize("wish", [SUSPENDED, CANCELLED], ids=["suspended", "cancelled"])
def test_that_nothing_runs_any_more_is_said_upon_a_live_look(kind: str, wish: dict[str, Any]) -> None:
    assert asks(RETRIED[kind], spec=wish[kind])


@KINDS
def test_what_has_been_stopped_is_left_behind_upon_a_live_look(kind: str) -> None:
    """Its Job is forgotten by then, so no lookup by name finds its Pods."""
    stopped = replace(RETRIED[kind], status=RETRIED[kind].status.model_copy(update={"conditions": STOPPING}))
    forgotten = {"job_name": None, "retry_time": None, "try_number": None, "start_time": None}
    assert asks(stopped, status=stopped.status.model_copy(update=forgotten))


@KINDS
@pytest.mark.parametrize("wish", [SUSPENDED, CANCELLED, None], ids=["suspended", "cancelled", "outdated"])
def test_a_job_that_may_have_begun_to_run_is_deleted_upon_a_live_look(kind: str, wish: dict[str, Any] | None) -> None:
    running = RUNNING[kind]
    assert asks(running, **({"class_": NEW_IMAGE} if wish is None else {"spec": wish[kind]}))
    assert not asks(running, pods=(pod(running.jobs[0].name, phase="Running"),)), "it goes on"


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (trained_status(attempt_status(state="Pending")), {"class_": NEW_IMAGE}),
        (trained_status(attempt_status(state="Pending")), {"spec": job_spec(suspend=True)}),
        (trained_status(attempt_status(state="Failed", next_time=ago(1)), ended_attempts=[ended_attempt()]), {}),
    ],
    ids=["its class changed", "suspended", "another attempt"],
)
def test_an_attempt_is_replaced_stopped_or_followed_upon_a_live_look(
    status: FineTuneJobStatus, changes: dict[str, Any]
) -> None:
    jobs = () if status.ended_attempts else (job(status.attempt.job_name, digest="as it was"),)  # type: ignore[union-attr]
    status = status.model_copy(update={"phase": "Queued"})
    # The end of an attempt is recorded first; what it leaves behind is deleted by the next plan.
    if "spec" in changes:
        status = of_jobs.plan(observed_job(status, *jobs, **changes), NOW).status
    assert asks(observed_job(status, *jobs, **changes))


class Looks:
    """Plans a first time, and then once more from what it reads live."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    async def observe(self, reader: Reader, parent: Object) -> list[str]:
        found: list[Object] = [*await reader.list(JOBS, "team-a"), *await reader.list(PODS, "team-a")]
        one = await reader.get(FINE_TUNE_CLASSES, None, "cpu")
        self.seen.append([item["metadata"]["name"] for item in [*found, *([one] if one else [])]])
        return self.seen[-1]

    def plan(self, observed: list[str], now: Any) -> Plan[FineTuneJobStatus]:
        return PLAN if "live" not in observed else Plan(status=job_status(conditions=STOPPING, observed_generation=1))


class Late(FakeKube):
    """Its cache knows of nothing but a class."""

    @property
    def live(self) -> Reader:
        return FakeKube({path: {"items": [{"metadata": {"name": "live"}}]} for path in LISTS})

    async def list(self, resource: Resource, *_: Any, **__: Any) -> list[Object]:
        return []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        return dict(PARENT) if resource == FINE_TUNE_JOBS else {"metadata": {"name": "cached"}}


LISTS = ["GET /apis/batch/v1/namespaces/team-a/jobs", "GET /api/v1/namespaces/team-a/pods"]


@pytest.mark.parametrize("rests", [True, False])
async def test_a_plan_that_rests_on_absence_is_made_from_children_read_live_and_the_rest_as_it_is_known(
    rests: bool,
) -> None:
    kube, looks = Late(), Looks()
    owns = (OwnedResource(JOBS), OwnedResource(PODS))
    kind = Kind(
        FINE_TUNE_JOBS,
        FineTuneJobStatus,
        looks.observe,
        looks.plan,
        owns=owns,
        rests_on_absence=lambda observed, plan: rests and observed == ["cached"] and plan == PLAN,
    )
    await reconcile(kube, kind, KEY)
    assert looks.seen == [["cached"], ["live", "live", "cached"]][: 1 + rests]
    assert (f"POST {LISTS[0].removeprefix('GET ')}" in kube.writes) is not rests
    assert f"PATCH {PARENT_PATH}/status" in kube.writes
