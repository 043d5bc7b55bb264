"""Everything that the plan of an Evaluation looks at, read once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_operator.core.conditions import Standing
from finetune_operator.core.ownership import Owner, owner_of
from finetune_operator.finetuneclass.resolve import ResolvedClass, observe_class
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import Object
from finetune_operator.models.resolve import ResolvedModel, resolve_model
from finetune_operator.pods.observe import disowned_job_and_pods, owned_jobs_and_pods
from finetune_operator.pods.observed import JobView, PodView, job_view, pod_view
from finetune_operator.pods.warning_events import WarningEvent, observe_warnings


@dataclass(frozen=True)
class ObservedEvaluation:
    """The parent, its class, its models, its Jobs and Pods, and what keeps these from starting."""

    owner: Owner
    generation: int
    spec: EvaluationSpec
    status: EvaluationStatus
    platform: ResolvedClass | Standing
    candidates: tuple[tuple[str, ResolvedModel | Standing], ...]
    baseline: ResolvedModel | Standing | None
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """The Job of the last try, where somebody took its ownerReferences away."""
    warnings: tuple[WarningEvent, ...] = ()

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Pods of a Job."""
        return tuple(pod for pod in self.pods if pod.job_uid == job.uid)


async def observe(kube: Kube, parent: Object, *, trainer_image: str | None) -> ObservedEvaluation:
    """Read everything. Raises pydantic.ValidationError when the spec does not parse, UnreadableStatusError."""
    owner = owner_of(parent)
    spec, status = EvaluationSpec.from_wire(parent["spec"]), EvaluationStatus.read(parent.get("status"))
    candidates = tuple(
        [(candidate.name, await resolve_model(kube, owner.namespace, candidate.model)) for candidate in spec.candidates]
    )
    baseline = await resolve_model(kube, owner.namespace, spec.baseline.model) if spec.baseline else None
    found_jobs, found_pods = await owned_jobs_and_pods(kube, owner)
    disowned, _ = await disowned_job_and_pods(kube, owner, status.job_name, found_jobs)
    jobs, pods = [job_view(item) for item in found_jobs], [pod_view(item) for item in found_pods]
    return ObservedEvaluation(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        platform=await observe_class(kube, spec.class_name, trainer_image),
        candidates=candidates,
        baseline=baseline,
        jobs=tuple(jobs),
        pods=tuple(pods),
        disowned=tuple(job_view(item) for item in disowned),
        warnings=await observe_warnings(kube, owner.namespace, jobs, pods, datetime.now(UTC)),
    )
