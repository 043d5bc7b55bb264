"""What is known of an Evaluation when its plan is made."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.evaluation import Endpoint, EvaluationSpec, EvaluationStatus, Outputs
from finetune_api.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent

Answering = ResolvedModel | Endpoint | Outputs
"""What answers the examples."""


@dataclass(frozen=True)
class ObservedEvaluation:
    """The parent, its class, its models, its Jobs and Pods, and what keeps these from starting."""

    owner: Owner
    generation: int
    spec: EvaluationSpec
    status: EvaluationStatus
    class_: ResolvedClass | Readiness
    candidates: tuple[tuple[str, Answering | Readiness], ...]
    baseline: Answering | Readiness | None
    endpoints: tuple[EndpointConfig | Readiness, ...] = ()
    """The models of the class that graders ask, or that are candidates or the baseline."""
    refusal: Readiness | None = None
    """What of the graders can't work."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """The Job of the last try, where somebody took its ownerReferences away."""
    warnings: tuple[WarningEvent, ...] = ()

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Pods of a Job."""
        return tuple(pod for pod in self.pods if pod.job_uid == job.uid)
