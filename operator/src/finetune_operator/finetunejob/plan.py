"""What to do next for a FineTuneJob: every policy, in order, and the phase for each reason.

A mutator records what has happened. A decider may decide what to do; the first that does ends the first list.
The story is told in docs/explanation/lifecycle.md.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, decided
from finetune_operator.finetunejob.attempt_state import JobDecision, JobPlan, progress_reason
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.active_deadline import (
    count_suspended_time,
    fail_at_active_deadline,
    fail_refused_run_at_deadline,
    wake_at_deadline,
)
from finetune_operator.finetunejob.policies.attempt import (
    record_progress,
    record_start,
    start_attempt,
    wake_at_newer_report,
    watch_attempt,
)
from finetune_operator.finetunejob.policies.attempt_outcome import record_outcome, succeed
from finetune_operator.finetunejob.policies.class_limits import count_usage, wait_for_budget, wait_for_class
from finetune_operator.finetunejob.policies.earlier_pods import wait_for_earlier_pods
from finetune_operator.finetunejob.policies.finished import keep_finished
from finetune_operator.finetunejob.policies.preflight import (
    fail_at_preflight,
    record_preflight,
    start_preflight,
    watch_preflight,
)
from finetune_operator.finetunejob.policies.retry import (
    fail_at_image_pull,
    fail_at_retry_limit,
    record_next_time,
    telling_last_failure,
    wait_for_next_time,
)
from finetune_operator.finetunejob.policies.run import (
    begin_run,
    record_starting_model,
    refuse_run_id,
    stop_previous_run,
    wait_for_model,
)
from finetune_operator.finetunejob.policies.suspend import cancel, cancel_run, suspend, suspend_refused_run
from finetune_operator.finetunejob.policies.wrong_clock import correct_times

JobMutator = Mutator[ObservedFineTuneJob, FineTuneJobStatus]
JobDecider = Decider[ObservedFineTuneJob, FineTuneJobStatus]

UNTIL_DECIDED: tuple[JobMutator | JobDecider, ...] = (
    Mutator(correct_times),  # times that a wrong clock wrote
    Mutator(record_progress),  # step, loss and checkpoints, as the Pods of the newest attempt report them
    Decider(keep_finished),  # a finished run stays as it is until runId changes; ttlSecondsAfterFinished
    # How the attempt ended.
    Mutator(record_outcome),  # Succeeded, Failed or Disrupted
    Decider(succeed),  # Succeeded: the run has its result, whatever the spec says by now
    Decider(cancel_run),  # Cancelled: spec.cancel, whatever else the spec says
    Mutator(count_suspended_time),  # the time that does not count for activeDeadlineSeconds, whatever the spec says
    Decider(suspend_refused_run),  # spec.suspend is heeded whatever else the spec says
    Decider(fail_refused_run_at_deadline),  # Failed: activeDeadlineSeconds are over, whatever else the spec says
    Decider(refuse_run_id),  # a spec that no run may begin or go on with: what is known stays, and what runs goes on
    Decider(fail_at_image_pull),  # Failed: an image that can't be pulled
    Decider(fail_at_retry_limit),  # Failed: more often than retryLimit, or where another attempt can't help
    Mutator(record_next_time),  # Retrying: when the next attempt starts
    # Whether there is a run to go on with.
    Decider(stop_previous_run),  # another runId: the Pods of the run before end first
    Mutator(begin_run),  # the run before goes into the history, and a new one begins
    Mutator(count_suspended_time),  # that of a run that has just begun
    Decider(cancel),  # Cancelled: a run that began with spec.cancel
    Decider(suspend),  # spec.suspend: what runs is stopped, and nothing starts
    Decider(fail_at_active_deadline),  # activeDeadlineSeconds are over
    Decider(wait_for_model),  # the job that makes the model to start from has no result yet
    Mutator(record_starting_model),  # its result, the same for all attempts of the run
    # Validating: dataset, model and storage are read before an accelerator is asked for.
    Mutator(record_preflight),  # what the preflight Pod reported
    Decider(fail_at_preflight),  # Failed: what another preflight would find too
    Decider(telling_last_failure(watch_preflight)),  # the preflight Pod has no answer yet
    # Queued, Training: one attempt at a time.
    Mutator(record_start),  # whether its Pods run
    Decider(telling_last_failure(watch_attempt)),  # the attempt is pending, or runs
    # Nothing runs: whether the next preflight or attempt may start.
    Decider(wait_for_next_time),  # it is not time yet
    Decider(telling_last_failure(wait_for_earlier_pods)),  # something that ran before has not ended
    Decider(telling_last_failure(wait_for_class)),  # the class allows no such job
    Decider(telling_last_failure(wait_for_budget)),  # the namespace's accelerator hours are used up
    Decider(start_preflight),  # until one has succeeded
    Decider(telling_last_failure(start_attempt)),  # always decides
)
WHATEVER_WAS_DECIDED: tuple[JobMutator, ...] = (
    Mutator(count_usage),  # the accelerator time of the namespace's budget
    Mutator(wake_at_newer_report),  # and when a report that came too soon after the last may be shown
    Mutator(wake_at_deadline),  # the object is looked at again when activeDeadlineSeconds are over
)

PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Validating",
        Reason.VALIDATING: "Validating",
        Reason.QUEUED: "Queued",
        Reason.TRAINING: "Training",
        Reason.RETRYING: "Retrying",
        Reason.SUSPENDED: "Suspended",
        Reason.SUCCEEDED: "Succeeded",
        Reason.CANCELLED: "Cancelled",
    },
    stays=frozenset({Reason.STOPPING, Reason.DELETING}),
    failed="Failed",
)
"""A diagnosis leaves the run in the phase of what it does meanwhile (progress_reason)."""


def plan(observed: ObservedFineTuneJob, now: datetime) -> JobPlan:
    """The writes that bring the job one step further."""
    found = decided(UNTIL_DECIDED, observed, observed.status, _phase, now)
    for mutator in WHATEVER_WAS_DECIDED:
        found = mutator.run(observed, found, now)
    return found


def _phase(decision: JobDecision, readiness: Readiness) -> Phase:
    status, before = decision.status, decision.status.phase or "Validating"
    return before if decision.keeps_phase else PHASES.of(readiness, progress_reason(status), before)
