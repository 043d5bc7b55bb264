"""How a Job ended: whether it is over and has succeeded, and what its Pods report.

If it has not succeeded: whether the infrastructure ended it (an eviction, a preemption or a lost node is not a
failure), or else what failed, what to change, and whether another try may succeed.

Our own containers decide, whatever sidecars do: a sidecar that a mesh or a policy adds, and that does not exit by
itself, keeps its Pod Running and its Job Active forever. So a Pod's outcome is known once our container has been over
for a while, and the Pod is stopped with its Job. (The kubelet stops native sidecars by itself.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.lifecycle import Disruption, FailureStatus
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, AnyReport, Failure, parse_termination_message
from finetune_operator.core.conditions import MESSAGE_LENGTH
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.roles import LIGHT_ROLES

SIDECAR_SECONDS = 10
"""How long the kubelet may take to report that a Pod has ended after its last container did."""
GANG_SECONDS = 60
"""How long the others of a gang may take to notice that one of them failed, which Kubernetes does not see."""
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


def job_finished(job: JobView, pods: Sequence[PodView], now: datetime) -> bool:
    """Whether none of our containers runs in the Job's Pods, or one of a gang failed and the others don't notice."""
    if any(sidecars_alone(pod, now, GANG_SECONDS) and pod.exit_code != 0 for pod in pods):
        return True
    return len(pods) >= max(1, job.parallelism) and all(pod.is_terminal or sidecars_alone(pod, now) for pod in pods)


def job_succeeded(job: JobView, pods: Sequence[PodView], now: datetime) -> bool:
    """Whether a Job succeeded: it completed, or would have, if only our containers were in its Pods."""
    if job.state == "Complete":
        return True
    if job.state == "Failed" and all(pod.phase != "Failed" for pod in pods):
        return False  # No end of a Pod explains it.
    return len(pods) == job.parallelism and job_finished(job, pods, now) and all(pod.exit_code == 0 for pod in pods)


def sidecars_alone(pod: PodView, now: datetime, seconds: int = SIDECAR_SECONDS) -> bool:
    """Whether our container of a Pod ended at least `seconds` ago, and only containers that are not ours still run."""
    since = sidecars_alone_since(pod)
    return since is not None and now >= since + timedelta(seconds=seconds)


def sidecars_alone_since(pod: PodView) -> datetime | None:
    """When our container exited in a Pod that its sidecars keep running; None for every other Pod."""
    return None if pod.is_terminal or pod.terminating or pod.exit_code is None else pod.ended_time


def next_sidecar_check(pods: Iterable[PodView], now: datetime) -> datetime | None:
    """When the sidecars of a Pod will next have been alone for long enough; None if each has been already."""
    checks = [
        since + timedelta(seconds=seconds)
        for pod in pods
        if (since := sidecars_alone_since(pod)) is not None
        for seconds in (SIDECAR_SECONDS, *((GANG_SECONDS,) if pod.exit_code != 0 else ()))
    ]
    return min((check for check in checks if check > now), default=None)


def sidecar_message(pods: Sequence[PodView]) -> str:
    """Which containers that are not ours keep Pods from ending, or don't start beside ours, with a space before it."""
    stuck = next((pod for pod in pods if pod.started_time is not None and pod.waiting_foreign), None)
    if stuck is not None:
        why = f"{stuck.waiting_reason}: {stuck.waiting_message}" if stuck.waiting_message else stuck.waiting_reason
        return (
            f" Container {stuck.waiting_foreign} of Pod {stuck.name}, which was injected, does not start "
            f"({why}); the operator's own container runs without it."
        )
    kept = [pod for pod in pods if sidecars_alone_since(pod) is not None and pod.foreign_running]
    if not kept:
        return ""
    names = ", ".join(sorted({name for pod in kept for name in pod.foreign_running}))
    return f" Container {names} of Pod {kept[0].name}, which was injected, still runs; it is stopped with the Pod."


def outcome(pods: Sequence[PodView]) -> AnyReport | None:
    """The report of a Job's Pods: a report of success first, or else that of the failure closest to the cause.

    Only a Pod that exited with 0 can report success, which counts only if its Job succeeded (job_succeeded).
    """
    succeeded = sorted((pod for pod in pods if pod.exit_code == 0), key=lambda pod: pod.index)
    reported = [parse_termination_message(pod.message) for pod in succeeded]
    reports = [answer for answer in reported if answer is not None and not isinstance(answer, Failure)]
    failures = [answer for _, answer in reported_failures(pods)]
    return next(iter(reports), None) or next(iter(failures), None)


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


def is_disruption(pods: Sequence[PodView], expected: int) -> bool:
    """Whether the infrastructure ended the Pods: evicted, preempted, deleted, killed, or asked to stop.

    A rank that loses its peer fails too, so one disrupted or missing Pod is enough. But if a Pod fails by itself, the
    Job controller deletes the others: a crash or a failure reported by a Pod that still exists is not a disruption, and
    neither is a Job whose Pods all report success.
    """
    if any(pod.disrupted for pod in pods):
        return True
    if any(pod.disk_exceeded for pod in pods):
        return False
    reported = reported_failures(pods)
    if any(not answer.lost_peer for _, answer in reported) or any(pod.oom_killed for pod in pods):
        return False
    if any(pod.foreign_failure and pod.exit_code in (None, 0) for pod in pods):
        return False
    lost_peer = {pod.name for pod, _ in reported if pod.exit_code not in FROM_OUTSIDE}
    ends = {pod.exit_code for pod in pods if pod.name not in lost_peer}
    if ends - {0, *FROM_OUTSIDE}:
        return False
    return len({pod.index for pod in pods}) < expected or bool(ends - {0})


def failed_by_itself(pods: Sequence[PodView]) -> bool:
    """Whether a Pod reports a failure of its own: neither the loss of a peer, nor a symptom of waiting for one."""
    reported = [answer for _, answer in reported_failures(pods)]
    own = any(not answer.lost_peer and answer.reason not in SYMPTOMS for answer in reported)
    return own or any(pod.oom_killed or pod.disk_exceeded for pod in pods)


def first_disruption(pods: Iterable[PodView]) -> Disruption | None:
    """The disruption in the conditions of the first Pod that has one."""
    for pod in pods:
        if pod.disrupted and pod.disruption:
            reason, _, message = pod.disruption.partition(":")
            return Disruption(pod=pod.name, reason=reason.strip()[:128], message=message.strip()[:1024])
    return None


def disrupted_pod_is_gone(seen: Disruption | None, pods: Iterable[PodView]) -> bool:
    """Whether the Pod that was being disrupted is gone now."""
    return seen is not None and all(pod.name != seen.pod for pod in pods)


def disruption_message(pods: Iterable[PodView], seen: Disruption | None = None) -> str:
    """How the Pods were disrupted, as far as is known."""
    pods = list(pods)
    for pod in pods:
        if pod.disruption:
            return f"Pod {pod.name} was disrupted ({pod.disruption})."
    if seen is not None:
        return f"Pod {seen.pod} was disrupted ({seen.reason}: {seen.message})."
    for pod in pods:
        if pod.exit_code == EXIT_KILLED:
            return f"Pod {pod.name} was killed (SIGKILL, but not for its memory)."
    for pod in pods:
        if pod.exit_code == EXIT_DISRUPTED:
            return f"Pod {pod.name} was told to stop (SIGTERM)."
    return "A Pod of the attempt has disappeared."


def failure(pods: Sequence[PodView], job_message: str, job_reason: str = "") -> FailureStatus:
    """The diagnosis of a failed Job: a Pod's own report, or else what its exit code and last log line show."""
    reported = reported_failures(pods)
    if job_reason == JOB_DEADLINE_EXCEEDED and not reported:
        return FailureStatus(
            reason=Reason.DEADLINE_EXCEEDED,
            message=f"Its Job or Pod exceeded its activeDeadlineSeconds. {job_message}".strip()[:MESSAGE_LENGTH],
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
