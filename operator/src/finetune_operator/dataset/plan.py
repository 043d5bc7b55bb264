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
from finetune_operator.dataset.policies.active_deadline import (
    count_suspended_time,
    fail_at_active_deadline,
    wake_at_deadline,
)
from finetune_operator.dataset.policies.building import record_disruption, start_try, watch_try
from finetune_operator.dataset.policies.earlier_pods import wait_for_earlier_pods
from finetune_operator.dataset.policies.finished import keep_finished
from finetune_operator.dataset.policies.retry import (
    fail_at_retry_limit,
    record_failure,
    retry_disrupted,
    retry_failed,
    wait_for_retry_time,
)
from finetune_operator.dataset.policies.revision import take_revision
from finetune_operator.dataset.policies.run_id import begin_run
from finetune_operator.dataset.policies.suspend import cancel, suspend
from finetune_operator.dataset.policies.waiting import wait_for_class, wait_for_prompts
from finetune_operator.dataset.policies.wrong_clock import correct_times

DatasetMutator = Mutator[ObservedDataset, DatasetStatus]
DatasetDecider = Decider[ObservedDataset, DatasetStatus]

POLICIES: tuple[DatasetMutator | DatasetDecider, ...] = (
    Mutator(correct_times),  # times written by a wrong clock
    Decider(keep_finished),  # a finished run, until its runId changes
    Decider(take_revision),  # Succeeded: the newest try has committed a revision
    Mutator(record_failure),  # the newest try failed, which counts
    Decider(cancel),  # spec.cancel, whatever it waits for: what runs is stopped, then Cancelled
    Decider(fail_at_retry_limit),  # Failed: it failed, and another try can't help, or was the last one allowed
    Mutator(count_suspended_time),  # the time that does not count for activeDeadlineSeconds
    Decider(suspend),  # spec.suspend: what runs is stopped, and nothing starts
    Decider(fail_at_active_deadline),  # Failed: activeDeadlineSeconds are over
    Decider(wait_for_class),  # no class, or one that does not allow the spec's sources; a running try continues
    Decider(wait_for_prompts),  # the Dataset of generate.prompts has no revision yet
    Mutator(begin_run),  # another runId
    # Building: the newest try.
    Mutator(record_disruption),  # why the infrastructure is ending the Pod
    Decider(watch_try),  # it has no result yet
    Decider(retry_disrupted),  # Retrying: the infrastructure ended it, which never counts
    Decider(retry_failed),  # Retrying: it failed
    # Nothing runs: whether the next try may start.
    Decider(wait_for_retry_time),  # it is not time yet
    Decider(wait_for_earlier_pods),  # a Pod of an earlier try is still running
    Decider(start_try),  # always decides
)
ALWAYS: tuple[DatasetMutator, ...] = (Mutator(wake_at_deadline),)  # when activeDeadlineSeconds are over

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
