"""Why serving Pods do not start, where one of their containers ended with an error. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_operator.core.conditions import Readiness, failure_message, known_reason, stalled
from finetune_operator.pods.job_outcome import failure
from finetune_operator.pods.observed import PodView


def crash_of(pods: Sequence[PodView]) -> Readiness | None:
    """What the newest of them that crashed said of it; None: none did."""
    crashed = _crashed(pods)
    if crashed is None:
        return None
    diagnosis = failure([crashed], crashed.waiting_message)
    return stalled(known_reason(diagnosis.reason), f"{failure_message(diagnosis)} It is restarted automatically.")


def is_crashing(pods: Sequence[PodView]) -> bool:
    """Whether it is more than one end, upon which the model is loaded again."""
    crashed = _crashed(pods)
    return crashed is not None and (crashed.restarts > 1 or crashed.waiting_reason == "CrashLoopBackOff")


def _crashed(pods: Sequence[PodView]) -> PodView | None:
    """The newest Pod that has a container that ended with an error, and that has not been ready since."""
    # Its first end is enough: a container that runs longer than the kubelet's back-off never shows CrashLoopBackOff.
    ended_badly = [pod for pod in pods if pod.exit_code not in (None, 0) and not pod.is_terminal]
    evicted = [pod for pod in pods if pod.disk_exceeded]
    found = [pod for pod in [*ended_badly, *evicted] if not (pod.ready or pod.terminating)]
    return max(found, key=lambda pod: (pod.created is not None, pod.created), default=None)
