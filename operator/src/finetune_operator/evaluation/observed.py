"""The state of an Evaluation from which its plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluation import CandidateProgress, Endpoint, EvaluationSpec, EvaluationStatus, Outputs, SentReport
from finetune_api.finetunejob import Progress
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decision, Plan
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.progress.endpoint import ProgressEndpoint
from finetune_operator.retried_run.observed import ObservedRun

EvaluationPlan = Plan[EvaluationStatus]
EvaluationDecision = Decision[EvaluationStatus]
Answering = ResolvedModel | Endpoint | Outputs
"""Where the outputs come from."""


@dataclass(frozen=True, kw_only=True)
class ObservedEvaluation(ObservedRun[EvaluationSpec, EvaluationStatus]):
    """Its run, the models and data that the spec refers to, and what its Pod has reported."""

    candidates: tuple[tuple[str, Answering | Readiness], ...]
    baseline: Answering | Readiness | None
    dataset: PinnedRevision | Readiness | None = None
    """What dataset.datasetRef resolves to now; None without one."""
    endpoints: tuple[EndpointConfig | Readiness, ...] = ()
    """The class's models behind an API that are graders, candidates or the baseline."""
    refusal: Readiness | None = None
    """Why a grader, gate or template is invalid."""
    progress: Progress | None = None
    """What the Pod of the newest try has reported."""
    candidate_progress: tuple[CandidateProgress, ...] = ()
    """How far each model is, as it has reported."""
    newer_report_time: datetime | None = None
    """When the status may show the next report that has already arrived; None if there is none."""
    progress_endpoint: ProgressEndpoint | None = None
    arrived_report: SentReport | None = None
    """The whole report of the newest try, if it has arrived and the status may not have it yet."""
