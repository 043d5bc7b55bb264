"""The state of a Dataset from which its plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import Decision, Plan
from finetune_operator.core.wrong_clock import ServerTimes
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent

DatasetPlan = Plan[DatasetStatus]
DatasetDecision = Decision[DatasetStatus]


@dataclass(frozen=True)
class ObservedDataset:
    """The object, its class, and its Jobs and Pods with their Warning Events."""

    owner: Owner
    generation: int
    spec: DatasetSpec
    status: DatasetStatus
    class_: ResolvedClass | Readiness
    classifier: EndpointConfig | Readiness | None = None
    """The class's model that spec.screening asks."""
    endpoints: tuple[EndpointConfig | Readiness, ...] = ()
    """The class's models that spec.generate asks, each once."""
    prompts: PinnedRevision | Readiness | None = None
    """The revision that the Dataset of generate.prompts.datasetRef has now."""
    refusal: Readiness | None = None
    """Why the spec is invalid."""
    created: datetime | None = None
    status_written: datetime | None = None
    """By the API server's clock."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """The Job of the last try, if somebody removed its ownerReferences."""
    warnings: tuple[WarningEvent, ...] = ()

    @property
    def server_times(self) -> ServerTimes:
        """The times that only the API server writes."""
        return ServerTimes(self.created, tuple(job.created for job in self.jobs), self.status_written)

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Pods of a Job."""
        return tuple(pod for pod in self.pods if pod.job_uid == job.uid)
