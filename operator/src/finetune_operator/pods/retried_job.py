"""A Job that is tried again, ever more slowly, until it succeeds: preflight and evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FailureStatus
from finetune_operator.core.conditions import Standing, known_reason, progressing, stalled
from finetune_operator.core.plan import Child
from finetune_operator.kube.resources import CONFIG_MAPS, JOBS
from finetune_operator.pods.exit_diagnosis import failure_words
from finetune_operator.pods.observed import JobView


def standing_of_try(working: Reason, found: FailureStatus | None, retry_time: datetime | None) -> Standing:
    """A try that follows a failed one keeps its diagnosis until it has an answer."""
    if found is None:
        return progressing(working)
    when = f"next at {retry_time:%H:%M:%S} UTC" if retry_time else "now"
    return stalled(known_reason(found.reason), f"{failure_words(found)} Tried again by itself: {when}.")


def jobs_to_delete(namespace: str, jobs: Iterable[JobView]) -> tuple[Child, ...]:
    """Jobs and their run configurations, which have the same names, but for what is being deleted already.

    The Job goes last: it is what the other is found by.
    """
    return tuple(
        child
        for job in jobs
        if not job.deleting
        for child in (Child(CONFIG_MAPS, namespace, job.name, None), Child(JOBS, namespace, job.name, job.uid))
    )


def runs_on(job: JobView) -> bool:
    """Whether a Job that is nobody's has Pods, or makes them."""
    return job.state == "Active" and not job.deleting


def disowned_words(job: JobView) -> str:
    """That nothing starts beside a Job that was the object's, and what to do."""
    return (
        f"Job {job.name} may still run Pods: somebody took its ownerReferences away, so that it is not this object's "
        "any more, and nobody tells it to stop. Nothing starts beside it. Wait until it has ended, or delete it: "
        f"kubectl delete job {job.name}"
    )
