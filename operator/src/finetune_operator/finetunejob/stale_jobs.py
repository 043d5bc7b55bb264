"""Which Jobs should no longer run and are deleted, and which of their Pods are awaited before anything starts."""

from __future__ import annotations

from datetime import datetime

from finetune_operator.core.plan import Child
from finetune_operator.finetunejob.attempt_state import running_jobs
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.pods.leftovers import (
    all_pods_ended,
    disowned_message,
    jobs_to_delete,
    orphan_message,
    orphans,
    other_active_jobs,
    stuck_job_message,
    stuck_jobs,
)
from finetune_operator.pods.observed import JobView, PodView, is_lost

ENDED_JOBS_KEPT = 3


def others_stopped(observed: ObservedFineTuneJob, now: datetime, *, keep: str | None = None) -> bool:
    """Whether no Pod except those of the Job to keep is running or could still start."""
    return not (_other_active_jobs(observed, keep) or _disowned(observed) or _running_pods(observed, now, keep))


def stopping_message(observed: ObservedFineTuneJob, now: datetime, *, keep: str | None = None) -> str:
    """What has not stopped yet; the message does not change until that does."""
    disowned = _disowned(observed)
    if disowned:
        return disowned_message(disowned[0])
    stuck = _stuck_jobs(observed, keep)
    if stuck:
        return stuck_job_message(stuck[0])
    pods = _running_pods(observed, now, keep)
    if not pods:
        return "Waiting for earlier Pods to end."
    left = orphans(pods)
    if left:
        return orphan_message(left, observed.owner.namespace)
    names = ", ".join(sorted(pod.name for pod in pods)[:3]) + (", ..." if len(pods) > 3 else "")
    ends = max((pod.deletion_time for pod in pods if pod.deletion_time is not None), default=None)
    by = f", by {ends:%H:%M:%S} UTC at the latest" if ends is not None else ""
    number = "1 Pod" if len(pods) == 1 else f"{len(pods)} Pods"
    end = "end" if all(pod.phase == "Pending" for pod in pods) else "save and end"
    return f"Waiting for {number} to {end}{by}: {names}."


def lost_pods_message(observed: ObservedFineTuneJob, now: datetime, *, keep: str | None = None) -> str:
    """Which Pods of lost nodes are no longer awaited, with a leading space; empty if there are none."""
    names = sorted(pod.name for pod in observed.pods if is_lost(pod, now) and pod.job_name != keep)
    if not names:
        return ""
    return (
        f" No longer waiting for {', '.join(names[:3])}: the node does not respond. What it may still write is kept "
        "apart from this attempt's files."
    )


def stale_jobs(observed: ObservedFineTuneJob, *, keep: str | None = None) -> tuple[Child, ...]:
    """The active Jobs to delete: all but the one to keep and those whose end is not yet in the stored status.

    The status may be one that is only held (held_statuses.py). That is harmless: what runs by the stored one is then
    the preflight, which has ended, and what has ended is not deleted here.
    """
    running = running_jobs(observed.status)
    stale = [*_other_active_jobs(observed, keep), *_stuck_jobs(observed, keep)]
    return jobs_to_delete(observed.owner.namespace, [job for job in stale if job.name not in running], observed.pods)


def stale_and_old_jobs(observed: ObservedFineTuneJob, *, keep: str) -> tuple[Child, ...]:
    """The stale Jobs, and all ended Jobs except the newest ones, whose Pods' logs may be needed."""
    ended = sorted(
        (job for job in observed.jobs if job.state != "Active" and job.name != keep), key=lambda job: job.created
    )
    return stale_jobs(observed, keep=keep) + jobs_to_delete(
        observed.owner.namespace, ended[:-ENDED_JOBS_KEPT], observed.pods
    )


def next_check(observed: ObservedFineTuneJob, now: datetime, later: datetime) -> datetime:
    """Now if a Job can be deleted once the status of this plan, with its end, is stored; otherwise `later`."""
    running = running_jobs(observed.status)
    left = [*_other_active_jobs(observed, None), *_stuck_jobs(observed, None)]
    return now if any(job.name in running for job in left) else later


def _other_active_jobs(observed: ObservedFineTuneJob, keep: str | None) -> list[JobView]:
    return other_active_jobs(observed.jobs, observed.pods, keep=keep)


def _stuck_jobs(observed: ObservedFineTuneJob, keep: str | None) -> list[JobView]:
    return stuck_jobs([job for job in observed.jobs if job.name != keep], observed.pods)


def _disowned(observed: ObservedFineTuneJob) -> list[JobView]:
    """The Jobs that have lost their owner and may still have or create Pods."""
    return [job for job in observed.disowned if job.is_active and not all_pods_ended(job, observed.pods)]


def _running_pods(observed: ObservedFineTuneJob, now: datetime, keep: str | None) -> list[PodView]:
    """The Pods that have not ended, except those of the Job to keep and those on lost nodes."""
    kept = observed.job(keep or "")
    kept_uid = None if kept is None else kept.uid
    return [pod for pod in observed.pods if not pod.is_terminal and not is_lost(pod, now) and pod.job_uid != kept_uid]
