"""Everything that the plan of a FineTuneJob looks at, read once."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Progress
from finetune_operator.children import Owner, owner_of, owner_selector
from finetune_operator.classes import ResolvedClass, observe_class
from finetune_operator.kube import JOBS, PODS, Kube, Object
from finetune_operator.pod_diagnosis import JobView, PodView, job_view, pod_view
from finetune_operator.progress import ProgressEndpoint, ProgressStore
from finetune_operator.status import Standing


@dataclass(frozen=True)
class ObservedFineTuneJob:
    """The parent, its class, its Jobs and Pods, and the newest progress report."""

    owner: Owner
    generation: int
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    platform: ResolvedClass | Standing
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    progress: Progress | None = None
    progress_endpoint: ProgressEndpoint | None = None

    def job(self, name: str) -> JobView | None:
        """The Job of this name."""
        return next((job for job in self.jobs if job.name == name), None)

    def pods_of(self, job_name: str) -> tuple[PodView, ...]:
        """The Pods of a Job."""
        return tuple(pod for pod in self.pods if pod.job_name == job_name)


async def observe(
    kube: Kube,
    parent: Object,
    *,
    trainer_image: str | None,
    progress: ProgressStore,
    endpoint: ProgressEndpoint | None,
) -> ObservedFineTuneJob:
    """Read everything. Raises pydantic.ValidationError when the spec does not parse."""
    owner = owner_of(parent)
    spec = FineTuneJobSpec.from_wire(parent["spec"])
    status = FineTuneJobStatus.from_wire(parent.get("status", {}))
    selector = owner_selector(owner.uid)
    jobs = [job_view(item) for item in await kube.list(JOBS, owner.namespace, selector)]
    pods = [pod_view(item) for item in await kube.list(PODS, owner.namespace, selector)]
    return ObservedFineTuneJob(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        platform=await observe_class(kube, spec.class_name, trainer_image),
        jobs=tuple(jobs),
        pods=tuple(pods),
        progress=progress.shown(owner.namespace, status.attempt.job_name) if status.attempt else None,
        progress_endpoint=endpoint,
    )
