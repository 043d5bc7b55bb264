"""Which watch events wake an object. Pure.

A reconciliation costs several requests, and most events change no plan: a child's counts, addresses, nodes, finalizers
and its creation, and the status that we wrote ourselves. What becomes relevant only with time (a Pod that does not
start) is left to the plan's own `requeue_at`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from finetune_operator.pods.observed import cached_job_view, cached_pod_view
from finetune_operator.pods.roles import PREFLIGHT_ROLE

ChildState = tuple[object, ...]

NOTHING_TO_DECIDE: ChildState = ()
"""Of a child that does what it was made for and has not ended."""


def child_changed(seen: dict[str, ChildState], body: Mapping[str, Any], type: str | None) -> bool:
    """Whether a child's event changes what a plan would react to; `seen` remembers that by UID.

    What the first list has (None) changes nothing: parents are listed after it, and each is looked at.
    """
    found = child_state(body)
    if found is None:
        return type is not None
    uid = body["metadata"]["uid"]
    if type == "DELETED":
        seen.pop(uid, None)
        return True
    before = seen.get(uid, NOTHING_TO_DECIDE)
    seen[uid] = found
    return type is not None and found != before


def child_state(body: Mapping[str, Any]) -> ChildState | None:
    """What a plan reacts to, to be compared from event to event; None for a type of which every event counts."""
    read = _READERS.get(body.get("kind", ""))
    return None if read is None else read(body)


def _job_state(body: Mapping[str, Any]) -> ChildState:
    job = cached_job_view(body)
    # A preflight is decided by what its Pod says, a second before the Job controller has counted it.
    is_decided = job.role == PREFLIGHT_ROLE and job.state != "Failed" and not job.reason
    state, ending = ("Active", False) if is_decided else (job.state, job.ending)
    if state == "Active" and not ending and not job.deleting and not job.suspended:
        return NOTHING_TO_DECIDE
    return ("Job", state, ending, job.deleting, job.suspended)


def _pod_state(body: Mapping[str, Any]) -> ChildState:
    pod = cached_pod_view(body)
    begun = pod.phase == "Pending" or (pod.phase == "Running" and pod.role == PREFLIGHT_ROLE)
    if begun and not pod.terminating and not pod.waiting_reason and not pod.disrupted and pod.exit_code is None:
        return NOTHING_TO_DECIDE
    return ("Pod", pod.phase, pod.terminating, pod.waiting_reason, pod.disrupted, pod.exit_code)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], ChildState]] = {"Job": _job_state, "Pod": _pod_state}
