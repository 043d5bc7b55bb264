"""The state of a retried run that its policies look at, whatever it makes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from finetune_api.lifecycle import RetriedRunStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.core.wrong_clock import ServerTimes
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent


class RetriedRunSpec(Protocol):
    """The fields of a spec that decide about its run, and not about what it makes."""

    @property
    def run_id(self) -> str: ...

    @property
    def class_name(self) -> str | None: ...

    @property
    def suspend(self) -> bool: ...

    @property
    def cancel(self) -> bool: ...

    @property
    def retry_limit(self) -> int: ...

    @property
    def active_deadline_seconds(self) -> int | None: ...

    @property
    def ttl_seconds_after_finished(self) -> int | None: ...


Spec_co = TypeVar("Spec_co", bound=RetriedRunSpec, covariant=True)
Status_co = TypeVar("Status_co", bound=RetriedRunStatus, covariant=True)


@dataclass(frozen=True, kw_only=True)
class ObservedRun(Generic[Spec_co, Status_co]):
    """The object, its class, and its Jobs and Pods with their Warning Events."""

    owner: Owner
    generation: int
    spec: Spec_co
    status: Status_co
    class_: ResolvedClass | Readiness
    created: datetime | None = None
    status_written: datetime | None = None
    """By the API server's clock."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """The Job of the last try, if its ownerReferences were removed."""
    warnings: tuple[WarningEvent, ...] = ()

    @property
    def server_times(self) -> ServerTimes:
        """The times that only the API server writes."""
        return ServerTimes(self.created, tuple(job.created for job in self.jobs), self.status_written)

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Pods of a Job."""
        return tuple(pod for pod in self.pods if pod.job_uid == job.uid)
