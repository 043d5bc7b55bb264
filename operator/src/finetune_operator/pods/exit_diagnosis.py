"""How the Pods of a Job ended: their reports, and the diagnosis of a failure. disruption.py says whether it counts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from finetune_api.conditions import Reason
from finetune_api.failure import FailureStatus
from finetune_api.outcome import (
    EXIT_DISRUPTED,
    EvaluationReport,
    Failure,
    PreflightReport,
    TrainReport,
    parse_termination_message,
)
from finetune_operator.core.conditions import MESSAGE_LENGTH
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.roles import LIGHT_ROLES

JOB_DEADLINE_EXCEEDED = "DeadlineExceeded"
"""The reason of a failed Job or Pod whose activeDeadlineSeconds are over."""
EXIT_KILLED = 137
"""128 + SIGKILL. The kubelet marks a kill for memory as OOMKilled; any other kill comes from outside the container."""
FROM_OUTSIDE = frozenset({None, EXIT_DISRUPTED, EXIT_KILLED})
SYMPTOMS = frozenset({Reason.TRAINING_STALLED, Reason.NCCL_TIMEOUT})
"""The reasons that every process of a gang reports if one of them hangs."""
EARLY_SECONDS = 60
"""Memory that does not suffice for so long is the model's and the libraries', and not yet the batches'."""
_SPACE = frozenset({Reason.CUDA_OUT_OF_MEMORY, Reason.OUT_OF_MEMORY, Reason.OUT_OF_DISK})


def outcome(pods: Sequence[PodView]) -> PreflightReport | TrainReport | EvaluationReport | Failure | None:
    """The report of a Job's Pods: a report of success first, or else that of the failure closest to the cause.

    Only a Pod that exited with 0 can report success, which counts only if its Job succeeded (job_completion.py).
    """
    succeeded = sorted((pod for pod in pods if pod.exit_code == 0), key=lambda pod: pod.index)
    reported = [parse_termination_message(pod.message) for pod in succeeded]
    reports = [answer for answer in reported if answer is not None and not isinstance(answer, Failure)]
    failures = [answer for _, answer in reported_failures(pods)]
    return next(iter(reports), None) or next(iter(failures), None)


def refused_report(pods: Sequence[PodView], why: str) -> FailureStatus:
    """The diagnosis of a report of success that is rejected.

    A report decides what is served and charged, and anyone who may exec into the Pod can write it: one that refers to
    something outside the run's folder, or to another model, is rejected.
    """
    pod = min(pods, key=lambda pod: pod.index, default=None)
    return FailureStatus(
        reason=Reason.REPORT_REFUSED,
        message=f"The report of Pod {pod.name if pod else '?'} was rejected: {why}."[:MESSAGE_LENGTH],
        pod=pod.name if pod else None,
        suggestion="Check what wrote it: a trainer image of another version, or somebody who may exec into the Pod.",
    )


def failure(pods: Sequence[PodView], job_message: str, job_reason: str = "") -> FailureStatus:
    """The diagnosis of a failed Job: a Pod's own report, or else what its exit code and last log line show."""
    reported = reported_failures(pods)
    if job_reason == JOB_DEADLINE_EXCEEDED and not reported:
        return FailureStatus(
            reason=Reason.DEADLINE_EXCEEDED,
            message=f"It did not end within the limit of its own Job or Pod. {job_message}".strip()[:MESSAGE_LENGTH],
            suggestion="Check the Pod's log for what takes so long: a chat template that never ends, too many "
            "examples, or answers that are too long. An evaluation's Job may take a day or, if that is longer, the "
            "activeDeadlineSeconds that its spec or class had when the Job was created.",
        )
    for pod, answer in reported:
        if not answer.lost_peer:
            return _as_reported(pod, answer)
    for pod in pods:
        if pod.disk_exceeded:
            return _out_of_disk(pod)
        if pod.oom_killed:
            return _out_of_memory(pod)
    if reported:
        return _as_reported(*reported[0])
    for pod in pods:
        if pod.foreign_failure and pod.exit_code in (None, 0):
            return _foreign_failure(pod)
    failed = [pod for pod in pods if pod.exit_code not in (None, 0)]
    if failed:
        return _without_report(min(failed, key=lambda pod: (pod.exit_code in FROM_OUTSIDE, pod.index)))
    message, suggestion = job_message or "The Pods have disappeared and left no termination message.", None
    if pods and all(pod.exit_code == 0 for pod in pods):
        message = f"Pod {pods[0].name} succeeded but left no report in its termination message."
        suggestion = "Set spec.images.trainer of the FineTuneClass to an image of this operator's version."
    return FailureStatus(reason=Reason.FAILED, message=message[:MESSAGE_LENGTH], suggestion=suggestion)


def is_retryable(diagnosis: FailureStatus, reported: Failure | None, earlier: Collection[str | None]) -> bool:
    """Whether another try with the same spec may succeed, of an attempt or of a retried Job.

    `reported`: the Pod's own report of the failure; `earlier`: the reasons of the failures before it. Fragmentation or
    a neighbour may cause one shortage of memory or disk; the second is attributed to the request.
    """
    if diagnosis.reason in _SPACE:
        return diagnosis.reason not in earlier
    return diagnosis.reason != Reason.REPORT_REFUSED and (reported is None or reported.retryable)


def reported_failures(pods: Sequence[PodView]) -> list[tuple[PodView, Failure]]:
    """The failures that Pods reported, the one closest to the cause first.

    A Pod's own failure is closer than the loss of a peer. Among processes that wait for each other, the cause is the
    one that is stopped, or else the one furthest behind, or else the lowest rank.
    """
    reported = [(pod, parse_termination_message(pod.message)) for pod in sorted(pods, key=lambda pod: pod.index)]
    found = [(pod, answer) for pod, answer in reported if isinstance(answer, Failure)]
    return sorted(found, key=lambda item: _distance_from_cause(item[1]))


def _distance_from_cause(reported: Failure) -> tuple[bool, bool, bool, float]:
    symptom = reported.reason in SYMPTOMS
    step = reported.step if symptom and reported.step is not None else math.inf
    return reported.lost_peer, symptom and not reported.stopped, reported.reason == Reason.NCCL_TIMEOUT, step


def _as_reported(pod: PodView, reported: Failure) -> FailureStatus:
    return FailureStatus(
        reason=reported.reason,
        message=reported.message,
        pod=pod.name,
        rank=reported.rank if reported.rank is not None else pod.index,
        suggestion=reported.suggestion,
        log=reported.log,
    )


def _out_of_memory(pod: PodView) -> FailureStatus:
    limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
    return FailureStatus(
        reason=Reason.OUT_OF_MEMORY,
        message=f"Pod {pod.name} was killed for using more memory than its limit{limit}.",
        pod=pod.name,
        rank=pod.index,
        suggestion=_less_memory(pod),
    )


def _less_memory(pod: PodView) -> str:
    """What to change about a Pod that ran out of memory."""
    if pod.role in LIGHT_ROLES:
        return "Raise preflight.resources.memory of the FineTuneClass."
    raised = "raise resources.memory of the FineTuneClass"
    if pod.role != "train":
        return "Raise resources.memory of the FineTuneClass, or that of the role where it has its own."
    if _ended_early(pod):
        return (
            f"It ended within its first minute, so the limit may be too small for the model itself: {raised}. "
            "Otherwise lower hyperparameters.batchSize or maxLength, or use adapter.type LoRA."
        )
    return f"Lower hyperparameters.batchSize or maxLength, use adapter.type LoRA, or {raised}."


def _ended_early(pod: PodView) -> bool:
    if pod.started_time is None or pod.ended_time is None:
        return False
    return (pod.ended_time - pod.started_time).total_seconds() < EARLY_SECONDS


def _out_of_disk(pod: PodView) -> FailureStatus:
    field = "preflight.resources.ephemeralStorage" if pod.role in LIGHT_ROLES else "resources.ephemeralStorage"
    return FailureStatus(
        reason=Reason.OUT_OF_DISK,
        message=f"Pod {pod.name} used more ephemeral storage than its limit: {pod.disk_exceeded}"[:MESSAGE_LENGTH],
        pod=pod.name,
        rank=pod.index,
        suggestion=f"Raise {field} of the FineTuneClass above the size of the model's and the dataset's files, or use "
        "smaller ones.",
    )


def _foreign_failure(pod: PodView) -> FailureStatus:
    """A container that something else added failed, and so did the Pod."""
    return FailureStatus(
        reason=Reason.POD_REJECTED,
        message=f"Pod {pod.name} failed: {pod.foreign_failure}".strip()[:MESSAGE_LENGTH],
        pod=pod.name,
        rank=pod.index,
        suggestion="Find the webhook or policy that adds this container to Pods, and exclude this Pod from it.",
    )


def _without_report(pod: PodView) -> FailureStatus:
    """The diagnosis of a Pod without a report, whose termination message is the end of its log."""
    how = "was killed (SIGKILL)" if pod.exit_code == EXIT_KILLED else f"ended with exit code {pod.exit_code}"
    return FailureStatus(
        reason=Reason.FAILED,
        message=f"Pod {pod.name} {how}. {_last_line(pod.message)}".strip(),
        pod=pod.name,
        rank=pod.index,
        log=pod.message[-MESSAGE_LENGTH:] or None,
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else ""
