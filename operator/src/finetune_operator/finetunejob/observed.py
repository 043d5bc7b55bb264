"""What is known of a FineTuneJob when its plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Progress
from finetune_api.progress import CheckpointLedger
from finetune_operator.budgets.observed import ObservedBudget
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent
from finetune_operator.progress.endpoint import ProgressEndpoint


@dataclass(frozen=True)
class ObservedFineTuneJob:
    """The parent, its class, its Jobs and Pods with the warnings about them, its reports and its namespace's budget."""

    owner: Owner
    generation: int
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    class_: ResolvedClass | Readiness
    folder_classes: tuple[ResolvedClass | Readiness, ...] = ()
    """The other classes that runs of it wrote with."""
    created: datetime | None = None
    """When the API server made the object."""
    status_written: datetime | None = None
    """When the status was written last, by the API server's clock."""
    model: ResolvedModel | Readiness | None = None
    """What spec.model.fineTuneJobRef means now; None where there is none, or the run has started from it already."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """A Job that was made for it and is not its own any more. Its Pods are among `pods`, to be waited for."""
    warnings: tuple[WarningEvent, ...] = ()
    progress: Progress | None = None
    ledger: CheckpointLedger | None = None
    newer_report_time: datetime | None = None
    """When the status may show a newer report than this; None where there is none."""
    budget: ObservedBudget | None = None
    progress_endpoint: ProgressEndpoint | None = None

    def job(self, name: str) -> JobView | None:
        """The Job of this name."""
        return next((job for job in self.jobs if job.name == name), None)

    def pods_of(self, job_name: str) -> tuple[PodView, ...]:
        """The Pods of the Job of this name."""
        found = self.job(job_name)
        return () if found is None else tuple(pod for pod in self.pods if pod.job_uid == found.uid)
