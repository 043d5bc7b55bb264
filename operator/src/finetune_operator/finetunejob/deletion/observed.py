"""What is left of a FineTuneJob that is being deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.roles import DELETE_ROLE


@dataclass(frozen=True)
class ObservedDeletion:
    """A FineTuneJob that is being deleted, with everything its deletion depends on."""

    owner: Owner
    generation: int
    status: FineTuneJobStatus
    class_name: str | None
    class_: ResolvedClass | Readiness
    """The class of the newest run, with whose credentials the storage is emptied."""
    deleted: datetime
    other_classes: Mapping[str, ResolvedClass | Readiness] = field(default_factory=dict)
    """The other classes with which its runs have written to storage."""
    namespace_ends: bool = False
    """The namespace is being deleted, so that nothing can be created in it."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """See ObservedFineTuneJob.disowned."""

    @property
    def delete_jobs(self) -> list[JobView]:
        """The Jobs that delete stored objects, oldest first."""
        return sorted((job for job in self.jobs if job.role == DELETE_ROLE), key=lambda job: (job.created, job.name))
