"""What Pod and Job objects, as kubelet, scheduler and Job controller write them, say to a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.outcome import Failure
from finetune_operator.pod_diagnosis import blockage, failure, is_disruption, job_view, outcome, pod_view
from tests.unit.operator.states import (
    LINE_7,
    LOSS_NOT_FINITE,
    LOST_PEER,
    TRAIN_REPORT,
    failed_pod,
    pod,
    succeeded_pod,
    told,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NAME = "router-train-0f3c2a91-0-x7k2p"

SCHEDULED = {
    "type": "PodScheduled",
    "status": "True",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-11-22T11:59:00Z",
}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No "
    "preemption victims found for incoming pod.",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-11-22T11:59:00Z",
}
GATED = {**UNSCHEDULABLE, "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty gates"}
PREEMPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "default-scheduler: preempting to accommodate a higher priority pod",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-11-22T11:59:30Z",
}


def container(name: str = "trainer", **state: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": "example.com/trainer:1",
        "imageID": "",
        "started": False,
    }


def waiting(reason: str, message: str | None = None) -> dict[str, Any]:
    return {"reason": reason} if message is None else {"reason": reason, "message": message}


def terminated(exit_code: int, reason: str = "Error", message: str | None = None) -> dict[str, Any]:
    times = {"startedAt": "2026-11-22T11:59:00Z", "finishedAt": "2026-11-22T11:59:30Z"}
    found = {"exitCode": exit_code, "reason": reason, "containerID": "containerd://1", **times}
    return found if message is None else {**found, "message": message}


def crashed(exit_code: int, message: str) -> dict[str, Any]:
    """A container that is started again and again."""
    back_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container=server")
    return {
        **container("server", waiting=back_off),
        "lastState": {"terminated": terminated(exit_code, message=message)},
    }


def pod_object(status: dict[str, Any], index: str | None = "0") -> dict[str, Any]:
    annotations = {} if index is None else {"batch.kubernetes.io/job-completion-index": index}
    return {
        "metadata": {
            "name": NAME,
            "labels": {"batch.kubernetes.io/job-name": "router-train-0f3c2a91", "finetune.dev/role": "train"},
            "annotations": annotations,
        },
        "spec": {},
        "status": status,
    }


def pending(*containers: dict[str, Any], conditions: Any = (SCHEDULED,)) -> dict[str, Any]:
    return {"phase": "Pending", "conditions": list(conditions), "containerStatuses": list(containers)}


CREATING = container(waiting=waiting("ContainerCreating"))


# What keeps a Pod from starting.


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ({}, None, ""),
        ({"phase": "Pending"}, None, ""),
        (pending(CREATING), None, ""),
        (pending(container(waiting=waiting("PodInitializing"))), None, ""),
        ({"phase": "Pending", "conditions": [GATED]}, None, ""),
        (
            {"phase": "Running", "containerStatuses": [container(running={"startedAt": "2026-11-22T11:59:00Z"})]},
            None,
            "",
        ),
        (
            {"phase": "Pending", "conditions": [UNSCHEDULABLE]},
            Reason.UNSCHEDULABLE,
            "3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption victims found for "
            "incoming pod. Free or add nodes, or lower what the FineTuneClass requests.",
        ),
        (
            pending(container(waiting=waiting("CreateContainerConfigError", 'secret "s3-credentials" not found'))),
            Reason.SECRET_NOT_FOUND,
            'secret "s3-credentials" not found. Create that Secret in this namespace with the keys AWS_ACCESS_KEY_ID '
            "and AWS_SECRET_ACCESS_KEY",
        ),
        (
            pending(
                container(
                    waiting=waiting(
                        "CreateContainerConfigError",
                        "couldn't find key AWS_SECRET_ACCESS_KEY in Secret team-a/s3-credentials",
                    )
                )
            ),
            Reason.SECRET_NOT_FOUND,
            "couldn't find key AWS_SECRET_ACCESS_KEY in Secret team-a/s3-credentials",
        ),
        (
            pending(
                container(
                    waiting=waiting(
                        "CreateContainerConfigError",
                        'container has runAsNonRoot and image will run as root (pod: "x", container: trainer)',
                    )
                )
            ),
            Reason.POD_REJECTED,
            "CreateContainerConfigError: container has runAsNonRoot",
        ),
        (
            pending(container(waiting=waiting("RunContainerError", 'exec: "finetune-trainer": not found'))),
            Reason.POD_REJECTED,
            "RunContainerError",
        ),
        (
            pending(
                container(
                    waiting=waiting(
                        "ErrImagePull",
                        'failed to pull and unpack image "example.com/trainer:1": not found',
                    )
                )
            ),
            Reason.IMAGE_PULL_FAILED,
            "example.com/trainer:1",
        ),
        (
            pending(container(waiting=waiting("ImagePullBackOff", 'Back-off pulling image "example.com/trainer:1"'))),
            Reason.IMAGE_PULL_FAILED,
            "Check spec.images of the FineTuneClass",
        ),
        (
            pending(container(waiting=waiting("InvalidImageName"))),
            Reason.IMAGE_PULL_FAILED,
            "can't pull its image: InvalidImageName",
        ),
        (
            {
                **pending(container("server", waiting=waiting("PodInitializing"))),
                "initContainerStatuses": [container("fetch", waiting=waiting("ErrImagePull", "not found"))],
            },
            Reason.IMAGE_PULL_FAILED,
            "not found",
        ),
    ],
    ids=[
        "no status yet",
        "not seen by the scheduler",
        "creating",
        "initializing",
        "held by a scheduling gate",
        "running",
        "no GPU free",
        "no Secret",
        "a key is missing in the Secret",
        "image runs as root",
        "no such program",
        "no such image",
        "image pull back-off",
        "bad image name",
        "init container without image",
    ],
)
def test_what_keeps_a_pod_from_starting(status: dict[str, Any], reason: Reason | None, told: str) -> None:
    found = blockage([pod_view(pod_object(status))], NOW)
    assert (found.reason if found else None) == reason
    if found is not None:
        assert NAME in found.message
        assert told in found.message


@pytest.mark.parametrize(("seconds", "named"), [(29, False), (30, True), (3600, True)])
def test_a_pod_is_unschedulable_after_half_a_minute(seconds: int, named: bool) -> None:
    """A cluster autoscaler is given a moment."""
    view = pod_view(pod_object({"phase": "Pending", "conditions": [UNSCHEDULABLE]}))
    since = datetime(2026, 11, 22, 11, 59, tzinfo=UTC)
    assert (blockage([view], since + timedelta(seconds=seconds)) is not None) is named


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
            {"exit_code": 143, "disrupted": True},
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
            {"exit_code": None, "disrupted": False},
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
def test_how_a_pod_ended(status: dict[str, Any], expected: dict[str, Any]) -> None:
    view = pod_view(pod_object(status))
    assert {name: getattr(view, name) for name in expected} == expected


def test_a_pods_place_in_the_gang_is_its_completion_index() -> None:
    assert pod_view(pod_object({}, index="3")).index == 3
    assert pod_view(pod_object({}, index=None)).index == 0


# How a Job ended.

STARTED = {"startTime": "2026-11-22T11:59:00Z"}


def job_object(*conditions: dict[str, str], **metadata: Any) -> dict[str, Any]:
    known = {"name": "router-train-0f3c2a91", "uid": "u", "creationTimestamp": "2026-11-22T11:58:00Z", **metadata}
    return {"metadata": known, "status": {**STARTED, "conditions": list(conditions)}}


def condition(kind: str, status: str = "True", message: str = "", reason: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


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
def test_how_a_job_ended(job: dict[str, Any], state: str, message: str) -> None:
    view = job_view(job)
    assert (view.state, view.message) == (state, message)


def test_a_job_that_is_being_deleted_is_seen_as_such() -> None:
    assert job_view(job_object(deletionTimestamp="2026-11-22T12:00:00Z")).deleting
    assert not job_view(job_object()).deleting


# Which words are believed.

OOM = Failure(reason=Reason.CUDA_OUT_OF_MEMORY, message="CUDA out of memory. Lower batchSize.", rank=5)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], None),
        ([pod("j", message="a log's tail")], None),
        ([succeeded_pod("j", TRAIN_REPORT), failed_pod("j", LINE_7, 1)], TRAIN_REPORT),
        ([failed_pod("j", LOSS_NOT_FINITE, 1), failed_pod("j", LINE_7, 0)], LINE_7),
        ([failed_pod("j", LOST_PEER, 0), failed_pod("j", OOM, 1)], OOM),
        ([failed_pod("j", LOST_PEER, 0)], LOST_PEER),
    ],
    ids=["no Pods", "no words", "success wins", "the first rank's", "not a peer's", "a peer's, if there is no other"],
)
def test_what_the_pods_said(pods: list[Any], expected: Any) -> None:
    assert outcome(pods) == expected


@pytest.mark.parametrize(
    ("pods", "reason", "rank", "told"),
    [
        ([failed_pod("j", OOM, 1)], Reason.CUDA_OUT_OF_MEMORY, 5, OOM.message),
        ([failed_pod("j", LOST_PEER, 0), failed_pod("j", OOM, 1)], Reason.CUDA_OUT_OF_MEMORY, 5, OOM.message),
        ([failed_pod("j", LOST_PEER, 1)], Reason.FAILED, 1, LOST_PEER.message),
        (
            [failed_pod("j", LOST_PEER, 0), pod("j", 1, "Failed", exit_code=137, oom_killed=True)],
            Reason.OUT_OF_MEMORY,
            1,
            "Lower hyperparameters.batchSize or maxLength",
        ),
        ([pod("j", 0, "Failed", exit_code=137)], Reason.OUT_OF_MEMORY, 0, "more memory than its limit"),
        (
            [pod("j", 0, "Failed", exit_code=143), pod("j", 1, "Failed", exit_code=1, message="a\nValueError: x\n\n")],
            Reason.FAILED,
            1,
            "ended with exit code 1. ValueError: x",
        ),
        ([pod("j", 0, "Succeeded", exit_code=0)], Reason.FAILED, None, "left no report"),
        ([], Reason.FAILED, None, "backoff limit"),
    ],
    ids=[
        "its own words",
        "the words of the rank that failed first",
        "only a peer's words",
        "killed beside one that lost its peer",
        "killed",
        "the last line of its log, and not of one told to stop",
        "well, but without a report",
        "the Job's words",
    ],
)
def test_the_diagnosis_of_a_failed_job(pods: list[Any], reason: Reason, rank: int | None, told: str) -> None:
    found = failure(pods, "Job has reached the specified backoff limit")
    assert (found.reason, found.rank) == (reason, rank)
    assert told in found.message


def test_the_last_lines_of_the_log_are_kept() -> None:
    found = failure([pod("j", 0, "Failed", exit_code=1, message="x" * 9000 + "\nValueError: y")], "")
    assert found.log is not None
    assert len(found.log) == 4096
    assert found.log.endswith("ValueError: y")


def test_a_very_long_message_of_a_job_is_cut() -> None:
    assert len(failure([], "x" * 40_000).message) == 4096


@pytest.mark.parametrize(
    ("pods", "disrupted"),
    [
        ([pod("j", 0, "Failed", exit_code=1)], True),
        ([pod("j", 0, "Failed", exit_code=1), pod("j", 0, "Failed", exit_code=1)], True),
        ([pod("j", 0, "Failed", exit_code=1), pod("j", 1, "Failed", exit_code=1)], False),
        ([failed_pod("j", OOM), pod("j", 1, "Failed", exit_code=143)], False),
        ([failed_pod("j", OOM), pod("j", 1, "Failed", exit_code=143, disrupted=True)], True),
        ([succeeded_pod("j", TRAIN_REPORT), succeeded_pod("j", TRAIN_REPORT, 1)], False),
    ],
    ids=["one is gone", "both are of one index", "both crashed", "one explains", "one was evicted", "both are done"],
)
def test_what_counts_as_a_disruption_of_two_nodes(pods: list[Any], disrupted: bool) -> None:
    assert is_disruption(pods, expected=2) is disrupted


def test_what_a_pod_says_survives_the_way_through_its_status() -> None:
    status = {"phase": "Failed", "containerStatuses": [container(terminated=terminated(1, message=told(LINE_7)))]}
    assert outcome([pod_view(pod_object(status))]) == LINE_7
