"""What a Job and its Pods tell: how an attempt ended, and what keeps a Pod from starting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FailureStatus
from finetune_api.outcome import (
    EXIT_DISRUPTED,
    EvaluationReport,
    Failure,
    PreflightReport,
    TrainReport,
    parse_termination_message,
)
from finetune_operator.children import ROLE_LABEL
from finetune_operator.kube import Object

UNSCHEDULABLE_AFTER_SECONDS = 30
BLOCKAGE_CHECK_SECONDS = 15
"""How often Pods that have not started are looked at again: time alone makes some of them blocked."""
_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
_JOB_LABEL = "batch.kubernetes.io/job-name"
_EXIT_SIGKILL = 137


@dataclass(frozen=True)
class PodView:
    """What matters of a Pod."""

    name: str
    job_name: str
    role: str
    index: int
    phase: str
    exit_code: int | None
    message: str
    oom_killed: bool
    disrupted: bool
    waiting_reason: str
    waiting_message: str
    unschedulable_since: datetime | None
    unschedulable_message: str


@dataclass(frozen=True)
class JobView:
    """What matters of a Job."""

    name: str
    uid: str
    state: Literal["Active", "Complete", "Failed"]
    message: str
    created: datetime
    deleting: bool
    role: str


@dataclass(frozen=True)
class Blockage:
    """Why a Pod does not start."""

    reason: Reason
    message: str


def pod_view(pod: Object) -> PodView:
    """Read a Pod object."""
    meta, status = pod["metadata"], pod.get("status", {})
    containers: list[dict[str, Any]] = [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]
    terminated = _first(containers, "terminated")
    waiting = _first(containers, "waiting", skip=("PodInitializing", "ContainerCreating"))
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return PodView(
        name=meta["name"],
        job_name=meta.get("labels", {}).get(_JOB_LABEL, ""),
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
        index=int(meta.get("annotations", {}).get(_INDEX_ANNOTATION, "0")),
        phase=status.get("phase", "Pending"),
        exit_code=terminated.get("exitCode"),
        message=terminated.get("message", "") or "",
        oom_killed=terminated.get("reason") == "OOMKilled",
        disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", "") or "",
        unschedulable_since=parse_time(scheduled["lastTransitionTime"]) if unschedulable else None,
        unschedulable_message=scheduled.get("message", "") if unschedulable else "",
    )


def job_view(job: Object) -> JobView:
    """Read a Job object."""
    meta = job["metadata"]
    held = {
        condition["type"]: condition
        for condition in job.get("status", {}).get("conditions", [])
        if condition["status"] == "True"
    }
    state: Literal["Active", "Complete", "Failed"] = "Active"
    if "Complete" in held:
        state = "Complete"
    elif "Failed" in held:
        state = "Failed"
    return JobView(
        name=meta["name"],
        uid=meta["uid"],
        state=state,
        message=held.get("Failed", {}).get("message", ""),
        created=parse_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
    )


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text)


def blockage(pods: Sequence[PodView], now: datetime) -> Blockage | None:
    """The first thing that keeps one of these Pods from starting, in words that name the fix."""
    for pod in pods:
        found = _waiting_blockage(pod)
        if found is not None:
            return found
        since = pod.unschedulable_since
        if since is not None and (now - since).total_seconds() >= UNSCHEDULABLE_AFTER_SECONDS:
            return Blockage(
                Reason.UNSCHEDULABLE,
                f"Pod {pod.name} finds no node: {pod.unschedulable_message} "
                "Free or add nodes, or lower what the FineTuneClass requests.",
            )
    return None


def outcome(pods: Sequence[PodView]) -> PreflightReport | TrainReport | EvaluationReport | Failure | None:
    """What the Pods of a Job said at their end: a report of success wins; of failures the most telling one."""
    said = [parse_termination_message(pod.message) for pod in sorted(pods, key=lambda pod: pod.index)]
    reports = [answer for answer in said if answer is not None and not isinstance(answer, Failure)]
    failures = [answer for _, answer in _failures(pods)]
    return next(iter(reports), None) or next(iter(failures), None)


def is_disruption(pods: Sequence[PodView], expected: int) -> bool:
    """Whether the infrastructure ended the Pods: evicted, preempted, deleted, or told to stop.

    A rank that loses its peer fails too, so one disrupted or missing Pod is enough; a diagnosis of a Pod is not, and
    neither is that every Pod says that it did well.
    """
    said = _failures(pods)
    if any(not answer.lost_peer for _, answer in said) or any(pod.oom_killed for pod in pods):
        return any(pod.disrupted for pod in pods)
    bereft = {pod.name for pod, _ in said}
    ends = {pod.exit_code for pod in pods if pod.name not in bereft}
    return (
        len({pod.index for pod in pods}) < expected
        or any(pod.disrupted for pod in pods)
        or (ends <= {0, EXIT_DISRUPTED, None} and bool(ends - {0}))
    )


def failure(pods: Sequence[PodView], job_message: str) -> FailureStatus:
    """The diagnosis of a failed Job: what a Pod said itself, else what its end looks like."""
    ended = sorted(
        (pod for pod in pods if pod.exit_code not in (None, 0)),
        key=lambda pod: (pod.exit_code == EXIT_DISRUPTED, pod.index),
    )
    said = _failures(pods)
    for pod, answer in said:
        if not answer.lost_peer:
            return _as_told(pod, answer)
    for pod in ended:
        if pod.oom_killed or pod.exit_code == _EXIT_SIGKILL:
            return FailureStatus(
                reason=Reason.OUT_OF_MEMORY,
                message=f"Pod {pod.name} was killed for using more memory than its limit. Lower "
                "hyperparameters.batchSize or maxLength, use adapter.type LoRA, or raise the class's memory.",
                pod=pod.name,
                rank=pod.index,
            )
    for pod, answer in said:
        return _as_told(pod, answer)
    for pod in ended:
        return FailureStatus(
            reason=Reason.FAILED,
            message=f"Pod {pod.name} ended with exit code {pod.exit_code}. {_last_line(pod.message)}".strip(),
            pod=pod.name,
            rank=pod.index,
            log=pod.message[-4096:] or None,
        )
    message = job_message or "The Pods are gone and left no message."
    if pods and all(pod.exit_code == 0 for pod in pods):
        message = (
            f"Pod {pods[0].name} ended well but left no report in its termination message. Check that spec.images of "
            "the FineTuneClass names a trainer image of this operator's version."
        )
    return FailureStatus(reason=Reason.FAILED, message=message[:4096])


def _failures(pods: Sequence[PodView]) -> list[tuple[PodView, Failure]]:
    """The diagnoses that Pods left, the most telling one first: of one's own end, by rank."""
    said = [(pod, parse_termination_message(pod.message)) for pod in sorted(pods, key=lambda pod: pod.index)]
    found = [(pod, answer) for pod, answer in said if isinstance(answer, Failure)]
    return sorted(found, key=lambda item: item[1].lost_peer)


def _as_told(pod: PodView, said: Failure) -> FailureStatus:
    rank = said.rank if said.rank is not None else pod.index
    return FailureStatus(reason=said.reason, message=said.message, pod=pod.name, rank=rank)


def _waiting_blockage(pod: PodView) -> Blockage | None:
    reason, message = pod.waiting_reason, pod.waiting_message
    if reason == "CreateContainerConfigError" and "secret" in message.lower():
        return Blockage(
            Reason.SECRET_NOT_FOUND,
            f"Pod {pod.name} can't read its storage credentials: {message}. Create that Secret in this namespace "
            "with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the Pod then starts by itself.",
        )
    if reason in ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"):
        return Blockage(
            Reason.IMAGE_PULL_FAILED,
            f"Pod {pod.name} can't pull its image: {message or reason}. Check spec.images of the FineTuneClass and "
            "that the nodes may pull from there.",
        )
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return Blockage(Reason.POD_REJECTED, f"Pod {pod.name} can't start: {reason}: {message}")
    return None


def _first(containers: Sequence[dict[str, Any]], state: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The first container's state of this name that tells something: of terminations a failed one first."""
    found = [
        details
        for container in containers
        # A container that is started again tells of its end in lastState.
        for details in (container.get("state", {}).get(state) or container.get("lastState", {}).get(state),)
        if details is not None and details.get("reason") not in skip
    ]
    found.sort(key=lambda details: details.get("exitCode", 1) == 0)
    return found[0] if found else {}


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else ""
