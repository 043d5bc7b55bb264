"""A Job that has not started is replaced when what it was rendered from has changed: usually its class.

A wrong image, priority class, node selector or Secret keeps a Job's Pods from ever starting, and a Job's template can't
be changed. So each Job carries the digest of all that was rendered with it, to be compared with what would be now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finetune_operator.core.digest import DIGEST_ANNOTATION, annotated, digest
from finetune_operator.kube.resources import JOBS, Object
from finetune_operator.pods.observed import JobView, PodView


def rendered(objects: Sequence[Object]) -> list[Object]:
    """The objects; the Job among them carries a digest of them all."""
    value = digest(list(objects), 16)
    return [annotated(body, value) if body["kind"] == JOBS.kind else body for body in objects]


def is_outdated(job: JobView, pods: Sequence[PodView], render: Callable[[], Sequence[Object] | None]) -> bool:
    """Whether a Job that has not started would be rendered differently now.

    `render` gives what `rendered` gives today; None while nothing may be created: a class that refuses changes nothing.
    """
    if not job.digest or job.deleting or has_started(job, pods) or (objects := render()) is None:
        return False
    digests = [body["metadata"]["annotations"][DIGEST_ANNOTATION] for body in objects if body["kind"] == JOBS.kind]
    return job.digest not in digests


def has_started(job: JobView, pods: Sequence[PodView]) -> bool:
    """Whether a Job has begun its work, for which ours must run in all of its Pods; one that has ended has begun.

    A Pod is Pending until all of its containers have started, also those that somebody else added.
    """
    if job.state != "Active" or job.ending or any(pod.ended for pod in pods):
        return True
    return sum(pod.phase != "Pending" or pod.started_time is not None for pod in pods) >= job.parallelism
