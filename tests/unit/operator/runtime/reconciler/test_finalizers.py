"""One reconciliation of an object with our finalizer: when it stands, and what goes before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.conditions import EventNote
from finetune_operator.core.kind_definition import Finalizer, Kind
from finetune_operator.core.plan import DeletionPlan, LeftBehind, Plan
from finetune_operator.kube.errors import ApiError
from finetune_operator.runtime.reconciler.reconcile import reconcile
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import (
    EVERYTHING,
    JOBS_PATH,
    KEY,
    PARENT,
    PARENT_PATH,
    PLAN,
    STATUS,
    STATUS_PATH,
    kube_with,
    planning,
)

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
async def test_the_finalizer_is_kept_while_it_is_needed(
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
async def test_the_finalizer_is_removed_last_and_an_event_of_the_class_says_what_stays(
    left_behind: LeftBehind | None,
) -> None:
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


@pytest.mark.parametrize("conditions", [[], [{"type": "Complete", "status": "True"}]], ids=["runs", "has ended"])
async def test_a_job_that_can_not_be_deleted_holds_no_object_for_ever(conditions: list[dict[str, str]]) -> None:
    """A policy keeps Jobs: the finalizer goes in time all the same, or its namespace could never go."""
    answers = {
        f"GET {PARENT_PATH}": parent_that(deletionTimestamp=DELETED, finalizers=[FINALIZER]),
        f"GET {JOBS_PATH}": {"items": [{"metadata": {"name": "old"}, "status": {"conditions": conditions}}]},
        f"DELETE {JOBS_PATH}/old": ApiError(403, "Forbidden", "denied the request: keep jobs"),
    }
    kube = FakeKube(answers)
    last = Plan(status=STATUS, delete=PLAN.delete)
    assert await reconcile(kube, holding(deletion=DeletionPlan(last, release=True)), KEY) is None
    assert kube.writes[-1] == f"PATCH {PARENT_PATH}"


async def test_a_finalizer_that_the_api_server_keeps_is_an_error() -> None:
    """A webhook put it back: the object is looked at again, and what stays is not said to be gone."""
    deleted = parent_that(deletionTimestamp=DELETED, finalizers=[FINALIZER])
    kube = FakeKube({f"GET {PARENT_PATH}": deleted, f"PATCH {PARENT_PATH}": deleted})
    with pytest.raises(ApiError, match=f"'router' still has {FINALIZER}"):
        await reconcile(kube, holding(deletion=DeletionPlan(Plan(status=STATUS), release=True)), KEY)


async def test_the_status_follows_the_finalizer() -> None:
    """The object has another version once it holds the finalizer: the status is for that one."""
    holds = parent_that(finalizers=[FINALIZER], resourceVersion="8")
    kube = FakeKube({f"GET {PARENT_PATH}": parent_that(), f"PATCH {PARENT_PATH}": holds})
    await reconcile(kube, holding(), KEY)
    (written,) = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    assert written is not None
    assert written["metadata"]["resourceVersion"] == "8"
