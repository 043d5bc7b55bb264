"""Whether the infrastructure ended a Job's Pods: an eviction, a preemption or a lost node is not a failure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune_api.failure import Disruption
from finetune_api.outcome import EXIT_DISRUPTED
from finetune_operator.pods.exit_diagnosis import EXIT_KILLED, FROM_OUTSIDE, SYMPTOMS, reported_failures
from finetune_operator.pods.observed import PodView


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
