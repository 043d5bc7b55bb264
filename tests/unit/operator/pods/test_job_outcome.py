"""How the Pods of a Job ended: whose words are believed, and what counts as a disruption."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import Failure
from finetune_operator.core.conditions import failure_message
from finetune_operator.pods.job_outcome import disruption_message, failed_by_itself, failure, is_disruption, outcome
from finetune_operator.pods.observed import pod_view
from tests.unit.operator.pod_objects import container, pod_object, terminated
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

# Which words are believed.

OOM = Failure(
    reason=Reason.CUDA_OUT_OF_MEMORY,
    message="CUDA out of memory.",
    rank=5,
    suggestion="Set hyperparameters.batchSize to 8 (now 16).",
    log="step 1\nstep 2",
)


def waits(step: int, rank: int, **changes: Any) -> Failure:
    """What the supervisor of a process says that makes no progress."""
    message = f"Rank {rank} made no progress in step {step}."
    return Failure(reason=Reason.TRAINING_STALLED, message=message, rank=rank, step=step, retryable=True, **changes)


NO_ANSWER = Failure(reason=Reason.NCCL_TIMEOUT, message="A collective timed out.", retryable=True)


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
def test_a_success_is_reported_first_and_else_the_failure_closest_to_the_cause(pods: list[Any], expected: Any) -> None:
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
        (
            [pod("j", 0, "Failed", exit_code=137, oom_killed=True)],
            Reason.OUT_OF_MEMORY,
            0,
            "more memory than its limit",
        ),
        ([pod("j", 0, "Failed", exit_code=137)], Reason.FAILED, 0, "was killed (SIGKILL)"),
        (
            [failed_pod("j", waits(58, 0), 0), failed_pod("j", waits(58, 1, stopped=True), 1)],
            Reason.TRAINING_STALLED,
            1,
            "Rank 1",
        ),
        (
            [failed_pod("j", waits(58, 0), 0), failed_pod("j", waits(57, 1), 1)],
            Reason.TRAINING_STALLED,
            1,
            "in step 57",
        ),
        ([failed_pod("j", waits(58, 0), 0), failed_pod("j", waits(58, 1), 1)], Reason.TRAINING_STALLED, 0, "Rank 0"),
        ([failed_pod("j", NO_ANSWER, 0), failed_pod("j", waits(58, 1), 1)], Reason.TRAINING_STALLED, 1, "Rank 1"),
        ([failed_pod("j", waits(57, 0), 0), failed_pod("j", LOSS_NOT_FINITE, 1)], Reason.LOSS_NOT_FINITE, 0, "NaN"),
        ([failed_pod("j", LOST_PEER, 0), failed_pod("j", waits(57, 1), 1)], Reason.TRAINING_STALLED, 1, "Rank 1"),
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
        "killed for its memory",
        "killed from outside",
        "all wait for one that is stopped",
        "all wait for one that is behind",
        "all wait at one step",
        "a timeout beside a stall",
        "a stall beside its cause",
        "a stall and what a peer sees of it",
        "the last line of its log, and not of one told to stop",
        "well, but without a report",
        "the Job's words",
    ],
)
def test_the_diagnosis_of_a_failed_job(pods: list[Any], reason: Reason, rank: int | None, told: str) -> None:
    found = failure(pods, "Job has reached the specified backoff limit")
    assert (found.reason, found.rank) == (reason, rank)
    assert told in failure_message(found)


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
        ([], True),
        ([failed_pod("j", LOST_PEER)], True),
        ([pod("j", 0, "Failed", exit_code=143), pod("j", 0, "Failed", exit_code=143)], True),
        ([pod("j", 0, "Failed", exit_code=1)], False),
        ([failed_pod("j", LOST_PEER), pod("j", 1, "Failed", exit_code=137)], True),
        ([failed_pod("j", LOST_PEER), pod("j", 1, "Failed", exit_code=137, oom_killed=True)], False),
        ([failed_pod("j", LOST_PEER), pod("j", 1, "Failed", exit_code=143, message=told(LOST_PEER))], True),
        ([failed_pod("j", LOST_PEER), failed_pod("j", LOST_PEER, 1)], False),
        ([failed_pod("j", waits(57, 0)), pod("j", 1, "Failed", exit_code=143)], False),
        ([pod("j", 0, "Failed", exit_code=1), pod("j", 1, "Failed", exit_code=1)], False),
        ([failed_pod("j", OOM), pod("j", 1, "Failed", exit_code=143)], False),
        ([failed_pod("j", OOM), pod("j", 1, "Failed", exit_code=143, disrupted=True)], True),
        ([succeeded_pod("j", TRAIN_REPORT), succeeded_pod("j", TRAIN_REPORT, 1)], False),
    ],
    ids=[
        "both are gone",
        "one is gone, and the other lost it",
        "both are of one index",
        "one crashed, and the other was taken away for it",
        "one was killed (SIGKILL)",
        "one was killed for its memory",
        "one was told to stop after it had lost a peer of its node",
        "both lost a peer",
        "one stalled",
        "both crashed",
        "one explains",
        "one was evicted",
        "both are done",
    ],
)
def test_what_counts_as_a_disruption_of_two_nodes(pods: list[Any], disrupted: bool) -> None:
    assert is_disruption(pods, expected=2) is disrupted


def test_the_diagnosis_carries_what_to_change_and_the_log() -> None:
    found = failure([failed_pod("j", OOM, 1)], "")
    assert (found.suggestion, found.log) == (OOM.suggestion, OOM.log)
    assert failure_message(found) == "CUDA out of memory. Set hyperparameters.batchSize to 8 (now 16)."


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ([pod("j", 1, disruption="PreemptionByScheduler: preempting")], "j-1-abcde was disrupted (PreemptionBy"),
        ([pod("j", 0, exit_code=143), pod("j", 1, exit_code=137)], "j-1-abcde was killed (SIGKILL"),
        ([pod("j", 0, exit_code=143)], "j-0-abcde was told to stop"),
        ([], "A Pod of the attempt has disappeared"),
    ],
)
def test_a_disruption_is_reported_with_its_pod_and_reason(pods: list[Any], told: str) -> None:
    assert told in disruption_message(pods)


def test_what_a_pod_says_survives_the_way_through_its_status() -> None:
    status = {"phase": "Failed", "containerStatuses": [container(terminated=terminated(1, message=told(LINE_7)))]}
    assert outcome([pod_view(pod_object(status))]) == LINE_7


@pytest.mark.parametrize(
    ("message", "suggestion", "words"),
    [
        ("The hub's name is not known", None, "The hub's name is not known."),
        ("It failed", "Raise it.", "It failed. Raise it."),
        ("It failed.", "Raise it.", "It failed. Raise it."),
        ("Really?", None, "Really?"),
    ],
)
def test_a_diagnosis_is_a_sentence_that_others_can_follow(message: str, suggestion: str | None, words: str) -> None:
    assert failure_message(FailureStatus(reason="Failed", message=message, suggestion=suggestion)) == words


# The disk of the node.

OWN_EXCESS = [
    'Usage of EmptyDir volume "tmp" exceeds the limit "20Gi". ',
    "Pod ephemeral local storage usage exceeds the total limit of containers 20Gi. ",
    'Container trainer exceeded its local ephemeral storage limit "20Gi". ',
]
NODE_IS_FULL = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. Container trainer was "
    "using 12Gi, request is 10Gi, has larger consumption of ephemeral-storage. "
)
BY_KUBELET = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "TerminationByKubelet",
    "message": NODE_IS_FULL,
    "lastTransitionTime": "2026-11-22T11:59:30Z",
}


def evicted_by_kubelet(message: str, *conditions: Any) -> Any:
    ended = container(terminated=terminated(137))
    status = {"phase": "Failed", "reason": "Evicted", "message": message, "containerStatuses": [ended]}
    return pod_view(pod_object({**status, "conditions": list(conditions)}))


@pytest.mark.parametrize("message", OWN_EXCESS)
@pytest.mark.parametrize("conditions", [(), (BY_KUBELET,)])
def test_a_pod_that_fills_its_own_disk_fails_and_says_what_to_raise(message: str, conditions: tuple[Any, ...]) -> None:
    view = evicted_by_kubelet(message, *conditions)
    assert not is_disruption([view], 1)
    found = failure([view], "")
    assert found.reason == Reason.OUT_OF_DISK
    assert message.strip() in found.message
    assert found.suggestion is not None
    assert "resources.ephemeralStorage of the FineTuneClass" in found.suggestion
    assert failed_by_itself([view])


def test_in_a_gang_the_one_that_filled_its_disk_is_reported() -> None:
    view = evicted_by_kubelet(OWN_EXCESS[0])
    others = [failed_pod("j", LOST_PEER, 1), pod("j", 2, "Failed", exit_code=143)]
    assert not is_disruption([*others, view], 3)
    assert failure([*others, view], "").reason == Reason.OUT_OF_DISK


def test_a_full_node_is_no_failure_of_the_run() -> None:
    assert is_disruption([evicted_by_kubelet(NODE_IS_FULL, BY_KUBELET)], 1)
    assert is_disruption([evicted_by_kubelet(NODE_IS_FULL)], 1)


@pytest.mark.parametrize(
    ("role", "seconds", "first"),
    [
        ("train", 59, "It ended within its first minute, so the limit may be too small for the model itself: raise"),
        ("train", 60, "Lower hyperparameters.batchSize or maxLength"),
        ("preflight", 59, "Raise preflight.resources.memory"),
        ("evaluate", 600, "Raise resources.memory"),
    ],
)
def test_what_ran_out_of_memory_is_told_its_limit_and_what_helps_first(role: str, seconds: int, first: str) -> None:
    times = {"startedAt": "2026-11-22T12:00:00Z", "finishedAt": f"2026-11-22T12:{seconds // 60:02}:{seconds % 60:02}Z"}
    ended = {"exitCode": 137, "reason": "OOMKilled", **times}
    found = pod_object({"phase": "Failed", "containerStatuses": [container(terminated=ended)]})
    found["metadata"]["labels"]["finetune.dev/role"] = role
    found["spec"] = {"containers": [{"name": "trainer", "resources": {"limits": {"memory": "2Gi"}}}]}
    said = failure([pod_view(found)], "")
    assert said.reason == "OutOfMemory"
    assert said.message.endswith("was killed for using more memory than its limit of 2Gi.")
    assert said.suggestion is not None
    assert said.suggestion.startswith(first)
