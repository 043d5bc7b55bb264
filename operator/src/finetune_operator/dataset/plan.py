"""What to do next for a Dataset: every policy, in order, and the phase for each reason.

A mutator records what has happened. A decider may decide what to do; the first that does ends the list.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, decided
from finetune_operator.dataset.observed import DatasetDecision, DatasetPlan, ObservedDataset
from finetune_operator.dataset.policies.errors import record_errors
from finetune_operator.dataset.policies.revision import keep_revision, take_revision
from finetune_operator.dataset.policies.run_id import begin_run
from finetune_operator.dataset.policies.waiting import wait_for_prompts
from finetune_operator.dataset.run import RUN
from finetune_operator.retried_run.policies.active_deadline import (
    count_suspended_time,
    fail_at_active_deadline,
    wake_at_deadline,
)
from finetune_operator.retried_run.policies.class_limits import wait_for_class
from finetune_operator.retried_run.policies.current_try import record_disruption, start_try, watch_try
from finetune_operator.retried_run.policies.earlier_pods import wait_for_earlier_pods
from finetune_operator.retried_run.policies.finished import keep_unsuccessful
from finetune_operator.retried_run.policies.retry import (
    fail_at_retry_limit,
    record_failure,
    retry_disrupted,
    retry_failed,
    wait_for_retry_time,
)
from finetune_operator.retried_run.policies.suspend import cancel, suspend
from finetune_operator.retried_run.policies.wrong_clock import correct_times

DatasetMutator = Mutator[ObservedDataset, DatasetStatus]
DatasetDecider = Decider[ObservedDataset, DatasetStatus]

# RUN.mutator and RUN.decider: a policy that other kinds have too, in retried_run/policies/.
POLICIES: tuple[DatasetMutator | DatasetDecider, ...] = (
    Mutator(correct_times),  # times written by a wrong clock
    Decider(keep_revision),  # a finished run, until its runId changes
    RUN.decider(keep_unsuccessful),  # and one that failed or was cancelled
    Decider(take_revision),  # Succeeded: the newest try has committed a revision
    Mutator(record_errors),  # the newest try failed for invalid lines
    RUN.mutator(record_failure),  # the newest try failed, which counts
    RUN.decider(cancel),  # spec.cancel, whatever it waits for: what runs is stopped, then Cancelled
    RUN.decider(fail_at_retry_limit),  # Failed: it failed, and another try can't help, or was the last one allowed
    RUN.mutator(count_suspended_time),  # the time that does not count for activeDeadlineSeconds
    RUN.decider(suspend),  # spec.suspend: what runs is stopped, and nothing starts
    RUN.decider(fail_at_active_deadline),  # Failed: activeDeadlineSeconds are over
    RUN.decider(wait_for_class),  # no class, or one that does not allow the spec's sources; a running try continues
    Decider(wait_for_prompts),  # the Dataset of generate.prompts has no revision yet
    Mutator(begin_run),  # another runId
    # Building: the newest try.
    RUN.mutator(record_disruption),  # why the infrastructure is ending the Pod
    RUN.decider(watch_try),  # it has no result yet
    RUN.decider(retry_disrupted),  # Retrying: the infrastructure ended it, which never counts
    RUN.decider(retry_failed),  # Retrying: it failed
    # Nothing runs: whether the next try may start.
    RUN.decider(wait_for_retry_time),  # it is not time yet
    RUN.decider(wait_for_earlier_pods),  # a Pod of an earlier try is still running
    RUN.decider(start_try),  # always decides
)
ALWAYS: tuple[DatasetMutator, ...] = (RUN.mutator(wake_at_deadline),)  # when activeDeadlineSeconds are over

FINISHED: frozenset[Phase] = frozenset({"Succeeded", "Failed", "Cancelled"})
"""The phases of a run that is over."""
PHASES: Phases[Phase] = Phases(
    {
        Reason.QUEUED: "Waiting",
        Reason.WAITING_FOR_DATASET: "Waiting",
        Reason.SUSPENDED: "Suspended",
        Reason.BUILDING: "Building",
        Reason.RETRYING: "Retrying",
        Reason.SUCCEEDED: "Succeeded",
        Reason.CANCELLED: "Cancelled",
    },
    stays=frozenset({Reason.STOPPING}),
    failed="Failed",
)
"""For a diagnosis, the phase follows from Decision.meanwhile."""


def plan(observed: ObservedDataset, now: datetime) -> DatasetPlan:
    """The writes that bring the dataset one step further."""
    return decided(POLICIES, observed, observed.status, _phase, now, ALWAYS)


def _phase(decision: DatasetDecision, readiness: Readiness) -> Phase:
    before = decision.status.phase or "Waiting"
    return PHASES.of(readiness, decision.meanwhile or Reason.BUILDING, before)
