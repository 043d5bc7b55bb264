"""A Pod that runs without a Job: no Job controller ends it, counts it, or keeps it until its end has been seen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_operator.finetunejob.objects import preflight_objects
from finetune_operator.finetunejob.policies.preflight import PREFLIGHT
from finetune_operator.kube.resources import PODS, Object
from finetune_operator.pods.leftovers import job_to_delete, stuck_jobs
from finetune_operator.pods.observed import LOST_POD_SECONDS, alone_view, parse_time, pod_view
from finetune_operator.pods.retried_job import Disrupted, Failed, Running, Succeeded
from finetune_operator.pods.warning_events import lacks_pods
from tests.unit.operator.pod_objects import (
    CREATING,
    GATED,
    PREEMPTED,
    SCHEDULED,
    UNSCHEDULABLE,
    container,
    pending,
    terminated,
)
from tests.unit.operator.states import MODEL_SOURCE, OWNER, PREFLIGHT_REPORT, job_spec, resolved_class, told

CREATED = "2026-11-22T12:00:00Z"
NOW = parse_time(CREATED) + timedelta(minutes=5)
DELETED = {"deletionTimestamp": "2026-11-22T12:01:00Z"}


def pod_as_made(status: Object, **metadata: Any) -> Object:
    """The Pod that the operator makes, as the API server has it."""
    (made,) = preflight_objects(OWNER, job_spec(), resolved_class(), MODEL_SOURCE, 1)
    meta = {**made["metadata"], "uid": "uid-of-the-pod", "creationTimestamp": CREATED, **metadata}
    return {**made, "metadata": meta, "status": status}


def result_of(pod: Object, seconds: float = 300) -> Running | Succeeded | Disrupted | Failed:
    return PREFLIGHT.result(alone_view(pod), [pod_view(pod)], (), parse_time(CREATED) + timedelta(seconds=seconds))


def ended(phase: str, code: int, message: str = "", **status: Any) -> Object:
    state = container(terminated=terminated(code, message=message))
    return {"phase": phase, "conditions": [SCHEDULED], "containerStatuses": [state], **status}


def test_it_is_the_only_pod_of_itself() -> None:
    pod = pod_as_made(pending(CREATING))
    job, view = alone_view(pod), pod_view(pod)
    assert (job.name, job.uid, job.role, job.state) == (view.name, view.job_uid, "preflight", "Active")
    assert view.job_name == job.name
    assert not view.orphaned
    deletion = job_to_delete(OWNER.namespace, job)
    assert (deletion.resource, deletion.name, deletion.uid) == (PODS, view.name, "uid-of-the-pod")
    assert not deletion.dependents_first


def test_its_report_counts_at_once() -> None:
    result = result_of(pod_as_made(ended("Succeeded", 0, told(PREFLIGHT_REPORT))))
    assert isinstance(result, Succeeded)
    assert result.report == PREFLIGHT_REPORT


@pytest.mark.parametrize(
    "status",
    [
        ended("Failed", 143, conditions=[SCHEDULED, PREEMPTED]),
        {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: Node didn't have enough resource: cpu"},
        {"phase": "Failed", "reason": "NodeShutdown", "message": "Pod was rejected as the node is shutting down."},
        ended("Failed", 137, reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
    ],
    ids=["preempted", "the kubelet has no room", "the node shuts down before it", "the node shuts down"],
)
def test_what_the_infrastructure_ended_is_no_failure(status: Object) -> None:
    assert isinstance(result_of(pod_as_made(status)), Disrupted)


def test_a_deleted_pod_is_waited_for_until_its_node_must_have_ended_it() -> None:
    """No Job controller makes another one, and the Pod of a lost node stays Terminating forever."""
    pod = pod_as_made({"phase": "Running", "conditions": [SCHEDULED]}, **DELETED)
    assert isinstance(result_of(pod, 60 + LOST_POD_SECONDS - 1), Running)
    lost = result_of(pod, 60 + LOST_POD_SECONDS)
    assert isinstance(lost, Disrupted)
    assert pod["metadata"]["name"] in lost.message


def test_a_finalizer_of_somebody_else_does_not_make_it_a_stuck_job() -> None:
    """The kubelet ends the containers of a deleted Pod whatever its finalizers."""
    pod = pod_as_made({"phase": "Running"}, finalizers=["example.com/mine"], **DELETED)
    assert isinstance(result_of(pod, 61), Running)
    assert stuck_jobs([alone_view(pod)], [pod_view(pod)]) == []
    assert not lacks_pods(alone_view(pod), [pod_view(pod)], NOW)


@pytest.mark.parametrize(
    "status",
    [pending(CREATING), {"phase": "Running"}, {"phase": "Unknown", "reason": "NodeLost"}],
    ids=["it never started", "its kubelet does not end it", "its node does not answer"],
)
def test_after_its_deadline_the_operator_ends_it(status: Object) -> None:
    hours = 6 * 3600
    assert isinstance(result_of(pod_as_made(status), hours - 1), Running)
    result = result_of(pod_as_made(status), hours)
    assert isinstance(result, Failed)
    assert (result.diagnosis.reason, result.final) == (Reason.DEADLINE_EXCEEDED, True)


@pytest.mark.parametrize("condition", [UNSCHEDULABLE, GATED], ids=["no node has room", "a queue holds it back"])
def test_a_pod_that_waits_for_its_node_has_used_nothing_of_its_deadline(condition: Object) -> None:
    day = 24 * 3600
    assert isinstance(result_of(pod_as_made({"phase": "Pending", "conditions": [condition]}), day), Running)
    placed = {**SCHEDULED, "lastTransitionTime": "2026-11-23T12:00:00Z"}
    assert isinstance(result_of(pod_as_made(pending(CREATING, conditions=[placed])), day + 6 * 3600 - 1), Running)
    assert isinstance(result_of(pod_as_made(pending(CREATING, conditions=[placed])), day + 6 * 3600), Failed)


def test_the_kubelet_ends_it_at_its_deadline() -> None:
    words = "Pod was active on the node longer than the specified deadline"
    result = result_of(pod_as_made(ended("Failed", 143, reason="DeadlineExceeded") | {"message": words}))
    assert isinstance(result, Failed)
    assert (result.diagnosis.reason, result.final) == (Reason.DEADLINE_EXCEEDED, True)
    assert words in (result.diagnosis.message or "")
