"""In what the retried runs of one kind differ from those of another: each kind's run.py has such a value, RUN.

Every shared policy gets it, and what was observed. The value holds no state of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

from finetune_api.conditions import Reason
from finetune_api.lifecycle import RetriedRunStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Decision, Mutator, Plan
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import Disrupted, Failed, Report, RetriedJob, Running, Succeeded
from finetune_operator.retried_run.observed import ObservedRun, RetriedRunSpec

ObservedT = TypeVar("ObservedT", bound=ObservedRun[RetriedRunSpec, RetriedRunStatus])
Status = TypeVar("Status", bound=RetriedRunStatus)
Result = Running | Succeeded | Disrupted | Failed


def _never(observed: object) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class RetriedRun(Generic[ObservedT, Status]):
    """The runs of one kind, for the policies that it shares with others."""

    # Words.
    working: Reason
    """Of Ready while a try runs; its phase is that of a try, whatever is wrong with it."""
    waiting: Reason
    """Its phase is that of a run whose class is missing."""
    work: str
    """What fails: `Building` failed 3 times."""
    outcome: str
    """What a run that did not end well is without: `a revision`."""
    run_again: str
    """What to change for another run, in a sentence."""
    reused: str = ""
    """What another run does not do again."""
    # What a run is, and what it needs.
    is_same_run: Callable[[ObservedT], bool]
    """Whether the status describes the run that the spec asks for."""
    new_run: Callable[[ObservedT, Status, datetime], Status]
    """The status with which the run that the spec asks for begins, after the one before it."""
    class_or_refusal: Callable[[ObservedT], ResolvedClass | Readiness]
    """The class of its Pods, or why it may have none."""
    missing: Callable[[ObservedT], Readiness | None]
    """What else a try needs and does not have."""
    has_lost_model: Callable[[ObservedT], bool] = _never
    """Whether what its try runs with no longer exists, so that its report would be rejected."""
    # Its tries.
    report: type[Report]
    """Of a Pod that has succeeded."""
    resumes: bool = False
    """Whether a try continues with what an earlier one saved."""
    has_config_map: bool = False
    """Whether each Job has a ConfigMap of the same name."""
    job_name: Callable[[ObservedT, Status, int], str]
    """Of the try with this number: deterministic, so that a Job that a crash left behind is found by it."""
    storage_uri: Callable[[ObservedT, Status, ResolvedClass], str]
    """The folder of the run."""
    objects: Callable[[ObservedT, Status], list[Object] | None]
    """Of the status's try, from the current class and spec; None while none may start."""
    try_result: Callable[[ObservedT, JobView, datetime], Result]
    """What came of a Job."""

    def decider(
        self, policy: Callable[[RetriedRun[ObservedT, Status], ObservedT, Status, datetime], Decision[Status] | None]
    ) -> Decider[ObservedT, Status]:
        """A shared policy, for the list of this kind."""
        return Decider(partial(policy, self))

    def mutator(
        self, policy: Callable[[RetriedRun[ObservedT, Status], ObservedT, Plan[Status], datetime], Plan[Status]]
    ) -> Mutator[ObservedT, Status]:
        """A shared policy, for the list of this kind."""
        return Mutator(partial(policy, self))


def retried_job(report: type[Report], spec: RetriedRunSpec) -> RetriedJob:
    """How the Job of a run is retried: after transient failures only, up to spec.retryLimit."""
    return RetriedJob(accepts=lambda found: isinstance(found, report), retry_limit=spec.retry_limit)
