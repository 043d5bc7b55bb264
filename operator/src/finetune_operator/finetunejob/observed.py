"""The state of a FineTuneJob from which its plan is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from finetune_api.dataset_reference import PinnedRevision
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Progress
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.budgets.observed import ObservedBudget
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.core.wrong_clock import ServerTimes
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent
from finetune_operator.progress.endpoint import ProgressEndpoint


@dataclass(frozen=True)
class ObservedFineTuneJob:
    """The object, its class, its Jobs and Pods with their Warning Events, its reports and its namespace's budget."""

    owner: Owner
    generation: int
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    class_: ResolvedClass | Readiness
    folder_classes: tuple[ResolvedClass | Readiness, ...] = ()
    """The other classes with which its runs have written to storage."""
    created: datetime | None = None
    """The object's creationTimestamp."""
    status_written: datetime | None = None
    """The time of the last status write, by the API server's clock."""
    model: ResolvedModel | Readiness | None = None
    """What spec.model.fineTuneJobRef resolves to; None without one, and once the run has recorded its model."""
    teacher: ResolvedModel | Readiness | None = None
    """The same of spec.method.distillation.teacher."""
    datasets: Mapping[str, PinnedRevision | Readiness] = field(default_factory=dict)
    """What each datasetRef (training, validation) resolves to; empty once the run has recorded their revisions."""
    reward_refusal: Readiness | None = None
    """Why method.rft can't reward anything; None if it can."""
    classifier: EndpointConfig | Readiness | None = None
    """The model that dataset.screening asks; None without one, and once preflight has succeeded."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """Jobs created for it that it no longer owns. Their Pods are included in `pods`, because they are waited for."""
    warnings: tuple[WarningEvent, ...] = ()
    progress: Progress | None = None
    checkpoint_report: CheckpointReport | None = None
    newer_report_time: datetime | None = None
    """When the status may show the next report that has already arrived; None if there is none."""
    budget: ObservedBudget | None = None
    progress_endpoint: ProgressEndpoint | None = None

    @property
    def server_times(self) -> ServerTimes:
        """The times that only the API server writes."""
        return ServerTimes(self.created, tuple(job.created for job in self.jobs), self.status_written)

    def job(self, name: str) -> JobView | None:
        """The Job of this name."""
        return next((job for job in self.jobs if job.name == name), None)

    def pods_of(self, job_name: str) -> tuple[PodView, ...]:
        """The Pods of the Job of this name."""
        found = self.job(job_name)
        return () if found is None else tuple(pod for pod in self.pods if pod.job_uid == found.uid)
