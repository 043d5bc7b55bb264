"""The state of an Evaluation from which its plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluated_models import Endpoint, Outputs
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.evaluation_progress import CandidateProgress
from finetune_api.evaluation_results import SentReport
from finetune_api.finetunejob import Progress
from finetune_api.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import Decision, Plan
from finetune_operator.core.wrong_clock import ServerTimes
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent
from finetune_operator.progress.endpoint import ProgressEndpoint

EvaluationPlan = Plan[EvaluationStatus]
EvaluationDecision = Decision[EvaluationStatus]
Answering = ResolvedModel | Endpoint | Outputs
"""Where the outputs come from."""


@dataclass(frozen=True)
class ObservedEvaluation:
    """The object, its class and models, and its Jobs and Pods with their Warning Events."""

    owner: Owner
    generation: int
    spec: EvaluationSpec
    status: EvaluationStatus
    class_: ResolvedClass | Readiness
    candidates: tuple[tuple[str, Answering | Readiness], ...]
    baseline: Answering | Readiness | None
    dataset: PinnedRevision | Readiness | None = None
    """What dataset.datasetRef resolves to now; None without one."""
    endpoints: tuple[EndpointConfig | Readiness, ...] = ()
    """The class's models behind an API that are graders, candidates or the baseline."""
    created: datetime | None = None
    status_written: datetime | None = None
    """By the API server's clock."""
    refusal: Readiness | None = None
    """Why a grader, gate or template is invalid."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """The Job of the last try, if somebody removed its ownerReferences."""
    warnings: tuple[WarningEvent, ...] = ()
    progress: Progress | None = None
    """What the Pod of the newest try has reported."""
    candidate_progress: tuple[CandidateProgress, ...] = ()
    """How far each model is, as it has reported."""
    newer_report_time: datetime | None = None
    """When the status may show the next report that has already arrived; None if there is none."""
    progress_endpoint: ProgressEndpoint | None = None
    arrived_report: SentReport | None = None
    """The whole report of the newest try, if it has arrived and the status may not have it yet."""

    @property
    def server_times(self) -> ServerTimes:
        """The times that only the API server writes."""
        return ServerTimes(self.created, tuple(job.created for job in self.jobs), self.status_written)

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Pods of a Job."""
        return tuple(pod for pod in self.pods if pod.job_uid == job.uid)
