"""Which changes of a child are worth a look of its parent."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.runtime.predicates import NOTHING_TO_DECIDE, child_state

ENDED = {"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T12:00:09Z", "startedAt": "2026-11-22T12:00:01Z"}}
PULLS = {"waiting": {"reason": "ContainerCreating"}}
NO_IMAGE = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}


def pod(
    role: str = "train", deleted: bool = False, state: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "p", "labels": {"finetune.dev/role": role}}
    if deleted:
        metadata |= {"deletionTimestamp": "2026-11-22T12:02:00Z", "deletionGracePeriodSeconds": 120}
    if state is not None:
        status["containerStatuses"] = [{"name": "trainer", "state": state}]
    return {"kind": "Pod", "metadata": metadata, "status": status}


def job(role: str = "train", condition: str | None = None, suspend: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": "j",
        "uid": "u",
        "creationTimestamp": "2026-11-22T12:00:00Z",
        "labels": {"finetune.dev/role": role},
    }
    if condition is not None:
        moved = {"type": condition, "status": "True", "lastTransitionTime": "2026-11-22T12:00:09Z"}
        reason = {} if condition in ("Complete", "SuccessCriteriaMet") else {"reason": "BackoffLimitExceeded"}
        status["conditions"] = [{**moved, **reason}]
    return {"kind": "Job", "metadata": metadata, "spec": {"suspend": suspend}, "status": status}


UNSCHEDULABLE = [
    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "2026-11-22T12:00:00Z"}
]


@pytest.mark.parametrize(
    ("child", "is_news"),
    [
        (pod(phase="Pending"), False),
        (pod(phase="Pending", conditions=UNSCHEDULABLE), False),  # named when it has lasted, by requeue_at
        (pod(phase="Pending", state=PULLS), False),
        (pod(phase="Pending", state=NO_IMAGE), True),
        (pod(phase="Running"), True),
        (pod(role="preflight", phase="Running"), False),
        (pod(role="preflight", phase="Running", state=ENDED), True),
        (pod(role="preflight", phase="Succeeded", state=ENDED), True),
        (pod(phase="Pending", deleted=True), True),
        (job(active=1, ready=1), False),
        (job(condition="Complete"), True),
        (job(condition="Failed"), True),
        (job(condition="FailureTarget"), True),
        (job(suspend=True), True),
        (job(role="preflight", condition="Complete"), False),  # its Pod has told
        (job(role="preflight", condition="SuccessCriteriaMet"), False),
        (job(role="preflight", condition="FailureTarget"), True),
        (job(role="preflight", condition="Failed"), True),
    ],
)
def test_an_event_of_a_child_wakes_its_owner_only_if_something_may_be_decided_by_it(
    child: dict[str, Any], is_news: bool
) -> None:
    assert (child_state(child) != NOTHING_TO_DECIDE) is is_news


def test_every_event_of_another_kind_counts() -> None:
    assert child_state({"kind": "Deployment"}) is None
