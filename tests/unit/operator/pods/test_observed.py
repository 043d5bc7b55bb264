"""What Pod and Job objects, as kubelet, scheduler and Job controller write them, say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_operator.pods.observed import job_view, pod_view
from tests.unit.operator.pod_objects import (
    CREATING,
    PREEMPTED,
    SCHEDULED,
    UNSCHEDULABLE,
    condition,
    container,
    crashed,
    job_object,
    pending,
    pod_object,
    terminated,
)


def test_the_run_configuration_that_a_pod_mounts_is_named() -> None:
    body = pod_object({"phase": "Running"})
    assert pod_view(body).run_config == ""
    volumes = [
        {"name": "ca-of-a-mesh", "configMap": {"name": "istio-ca-root-cert"}},
        {"name": "run", "configMap": {"name": "router-serve-0f3c2a91"}},
    ]
    assert pod_view({**body, "spec": {"volumes": volumes}}).run_config == "router-serve-0f3c2a91"


# How a Pod ended.


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            {"phase": "Succeeded", "containerStatuses": [container(terminated=terminated(0, "Completed", "done"))]},
            {"exit_code": 0, "message": "done", "oom_killed": False, "disrupted": False},
        ),
        (
            {"phase": "Failed", "containerStatuses": [container(terminated=terminated(137, "OOMKilled"))]},
            {"exit_code": 137, "message": "", "oom_killed": True, "disrupted": False},
        ),
        (
            {
                "phase": "Failed",
                "conditions": [SCHEDULED, PREEMPTED],
                "containerStatuses": [container(terminated=terminated(143))],
            },
            {
                "exit_code": 143,
                "disrupted": True,
                "disruption": "PreemptionByScheduler: default-scheduler: preempting to accommodate a higher priority "
                "pod",
            },
        ),
        (
            {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "The node was low on resource: memory.",
                "conditions": [{**PREEMPTED, "reason": "TerminationByKubelet"}],
            },
            {"exit_code": None, "disrupted": True},
        ),
        (
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed"},
            {"exit_code": None, "disrupted": False, "disruption": "UnexpectedAdmissionError: Allocate failed"},
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [
                    container("one", terminated=terminated(0, "Completed")),
                    container("two", terminated=terminated(1, message="boom")),
                ],
            },
            {"exit_code": 1, "message": "boom"},
        ),
        (
            {"phase": "Running", "containerStatuses": [crashed(1, "ImportError: no module named x")]},
            {"exit_code": 1, "message": "ImportError: no module named x", "waiting_reason": "CrashLoopBackOff"},
        ),
    ],
    ids=["well", "out of memory", "preempted", "evicted", "rejected by the node", "one of two", "crash loop"],
)
def test_a_pods_end_is_read_from_its_containers_and_conditions(
    status: dict[str, Any], expected: dict[str, Any]
) -> None:
    view = pod_view(pod_object(status))
    assert {name: getattr(view, name) for name in expected} == expected


@pytest.mark.parametrize("time", [{"lastTransitionTime": None}, {}], ids=["null", "none"])
@pytest.mark.parametrize("place", [SCHEDULED, UNSCHEDULABLE], ids=["scheduled", "unschedulable"])
def test_a_condition_that_does_not_tell_since_when_is_no_error(place: dict[str, Any], time: dict[str, Any]) -> None:
    """The API server asks nobody for it, and a virtual kubelet may leave it out."""
    timeless = {name: value for name, value in place.items() if name != "lastTransitionTime"} | time
    view = pod_view(pod_object({"phase": "Pending", "conditions": [timeless]}))
    assert (view.scheduled_time, view.unschedulable_since) == (None, None)


def test_a_pods_place_in_the_gang_is_its_completion_index() -> None:
    assert pod_view(pod_object({}, index="3")).index == 3
    assert pod_view(pod_object({}, index=None)).index == 0


# How a Job ended.


@pytest.mark.parametrize(
    ("job", "state", "message"),
    [
        ({"metadata": job_object()["metadata"]}, "Active", ""),
        (job_object(), "Active", ""),
        (job_object(condition("Suspended")), "Active", ""),
        (job_object(condition("FailureTarget", message="Job has reached the specified backoff limit")), "Active", ""),
        (job_object(condition("SuccessCriteriaMet"), condition("Complete")), "Complete", ""),
        (job_object(condition("Failed", "False")), "Active", ""),
        (
            job_object(
                condition("FailureTarget", message="Job has reached the specified backoff limit"),
                condition(
                    "Failed", message="Job has reached the specified backoff limit", reason="BackoffLimitExceeded"
                ),
            ),
            "Failed",
            "Job has reached the specified backoff limit",
        ),
    ],
    ids=["new", "active", "suspended by a queue", "its Pods still end", "complete", "not failed", "failed"],
)
def test_a_jobs_state_is_that_of_its_conditions(job: dict[str, Any], state: str, message: str) -> None:
    view = job_view(job)
    assert (view.state, view.message) == (state, message)


def test_a_job_that_is_being_deleted_is_seen_as_such() -> None:
    assert job_view(job_object(deletionTimestamp="2026-11-22T12:00:00Z")).deleting
    assert not job_view(job_object()).deleting


@pytest.mark.parametrize(
    ("conditions", "ending", "ended", "reason"),
    [
        ([], False, None, ""),
        ([condition("FailureTarget", reason="PodFailurePolicy")], True, None, "PodFailurePolicy"),
        ([condition("SuccessCriteriaMet")], True, None, ""),
        (
            [condition("FailureTarget"), condition("Failed", reason="BackoffLimitExceeded")],
            False,
            "11:59:30",
            "BackoffLimitExceeded",
        ),
    ],
    ids=["runs", "has failed and its Pods end", "is done and its Pods end", "failed"],
)
def test_a_job_that_has_failed_waits_for_its_pods(
    conditions: list[dict[str, str]], ending: bool, ended: str | None, reason: str
) -> None:
    view = job_view(job_object(*conditions))
    moment = datetime.fromisoformat(f"2026-11-22T{ended}Z") if ended else None
    assert (view.ending, view.end_time, view.reason) == (ending, moment, reason)


def test_what_a_queue_does_to_a_job() -> None:
    queued = job_object(suspend=True, labels={"kueue.x-k8s.io/queue-name": "gpus"})
    del queued["status"]["startTime"]
    view = job_view(queued)
    assert (view.suspended, view.start_time, view.queue_name) == (True, None, "gpus")
    assert job_view(job_object()).start_time == datetime(2026, 11, 22, 11, 59, tzinfo=UTC)


def test_the_times_of_a_pod_are_those_of_its_main_containers() -> None:
    status = {
        "phase": "Failed",
        "conditions": [SCHEDULED],
        "initContainerStatuses": [container("fetch", terminated=times("11:50:00", "11:51:00"))],
        "containerStatuses": [
            container("one", terminated=times("11:52:00", "11:57:00")),
            container("two", terminated=times("11:53:00", "11:56:00")),
        ],
    }
    view = pod_view(pod_object(status))
    assert (view.started_time, view.ended_time) == (noon(minutes=-8), noon(minutes=-3))
    assert view.is_terminal
    waits = pod_view(pod_object(pending(CREATING)))
    assert (waits.started_time, waits.ended_time, waits.is_terminal) == (None, None, False)


def times(started: str, finished: str) -> dict[str, Any]:
    return {"exitCode": 1, "startedAt": f"2026-11-22T{started}Z", "finishedAt": f"2026-11-22T{finished}Z"}


def noon(**later: int) -> datetime:
    return datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(**later)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z"])
def test_a_time_at_the_end_of_the_calendar_can_be_counted_with(moment: str) -> None:
    """Whoever may write a status or ask for a grace period may write any."""
    ended = {**terminated(1), "startedAt": moment, "finishedAt": moment}
    found = pod_object({"phase": "Failed", "containerStatuses": [container(terminated=ended)]})
    view = pod_view({**found, "metadata": {**found["metadata"], "deletionTimestamp": moment}})
    for time in (view.started_time, view.ended_time, view.deletion_time):
        assert time is not None
        assert time - timedelta(days=3660) < time < time + timedelta(days=3660)
