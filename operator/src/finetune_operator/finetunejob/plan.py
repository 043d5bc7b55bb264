"""What to do next for a FineTuneJob: every policy, in order, and the phase for each reason.

A mutator records what has happened. A decider may decide what to do; the first that does ends POLICIES.
docs/explanation/lifecycle.md describes the result, and "Follow a job" in architecture.md the way through the code.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, decided
from finetune_operator.finetunejob.attempt_state import JobDecision, JobPlan, preflight_succeeded, progress_reason
from finetune_operator.finetunejob.ends import with_last_failure
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.active_deadline import (
    count_suspended_time,
    fail_at_active_deadline,
    fail_refused_run_at_deadline,
    wake_at_deadline,
)
from finetune_operator.finetunejob.policies.attempt import (
    record_outcome,
    record_start,
    start_attempt,
    succeed,
    watch_attempt,
)
from finetune_operator.finetunejob.policies.class_limits import count_usage, wait_for_budget, wait_for_class
from finetune_operator.finetunejob.policies.earlier_pods import wait_for_earlier_pods
from finetune_operator.finetunejob.policies.finished import keep_finished
from finetune_operator.finetunejob.policies.preflight import (
    fail_at_preflight,
    record_preflight,
    start_preflight,
    wait_for_preflight_time,
    watch_preflight,
)
from finetune_operator.finetunejob.policies.progress import record_progress, wake_at_newer_report
from finetune_operator.finetunejob.policies.retry import (
    fail_at_image_pull,
    fail_at_retry_limit,
    record_next_time,
    wait_for_next_time,
)
from finetune_operator.finetunejob.policies.run_id import (
    begin_run,
    record_revisions,
    record_starting_model,
    refuse_run_id,
    stop_previous_run,
    wait_for_datasets,
    wait_for_model,
)
from finetune_operator.finetunejob.policies.suspend import cancel, cancel_run, suspend, suspend_refused_run
from finetune_operator.finetunejob.policies.wrong_clock import correct_times
from finetune_operator.pods import leftovers

JobMutator = Mutator[ObservedFineTuneJob, FineTuneJobStatus]
JobDecider = Decider[ObservedFineTuneJob, FineTuneJobStatus]

POLICIES: tuple[JobMutator | JobDecider, ...] = (
    Mutator(correct_times),  # times written by a wrong clock
    Mutator(record_progress),  # step, loss and checkpoints, as the Pods of the newest attempt report them
    Decider(keep_finished),  # a finished run, until runId changes; ttlSecondsAfterFinished
    # How the attempt ended.
    Mutator(record_outcome),  # Succeeded, Failed or Disrupted
    Decider(succeed),  # Succeeded: the run has its result, whatever the spec says by now
    Decider(cancel_run),  # spec.cancel, even if the rest of the spec is refused: Pods are stopped, then Cancelled
    Mutator(count_suspended_time),  # the time that activeDeadlineSeconds does not count
    Decider(suspend_refused_run),  # spec.suspend, even if the rest of the spec is refused
    Decider(fail_refused_run_at_deadline),  # Failed: activeDeadlineSeconds, even if the rest of the spec is refused
    Decider(refuse_run_id),  # a spec that can't start or continue a run: the status stays, running Pods continue
    Decider(fail_at_image_pull),  # Failed: an image that can't be pulled
    Decider(fail_at_retry_limit),  # Failed: retryLimit is reached, or another attempt can't help
    Mutator(record_next_time),  # Retrying: when the next attempt starts
    # Which run it is.
    Decider(stop_previous_run),  # another runId: the Pods of the previous run end first
    Mutator(begin_run),  # the previous run goes into the history, and a new one begins
    Mutator(count_suspended_time),  # the suspended time of a run that has just begun
    Decider(cancel),  # Cancelled: a run that began with spec.cancel
    Decider(suspend),  # spec.suspend: running Pods are stopped, and nothing starts
    Decider(fail_at_active_deadline),  # activeDeadlineSeconds are over
    Decider(wait_for_model),  # a FineTuneJob whose result is the starting model, or its teacher, has not succeeded yet
    Mutator(record_starting_model),  # these results, the same for all attempts of the run
    Decider(wait_for_datasets),  # a Dataset of a datasetRef has no revision yet
    Mutator(record_revisions),  # these revisions, the same for all attempts of the run
    # Validating: dataset, model and storage are checked before an accelerator is requested.
    Mutator(record_preflight),  # the report of the preflight Pod
    Decider(fail_at_preflight),  # Failed: another preflight would fail too
    Decider(with_last_failure(watch_preflight)),  # the preflight Pod has no answer yet
    # Queued, Training: one attempt at a time.
    Mutator(record_start),  # whether its Pods are running
    Decider(with_last_failure(watch_attempt)),  # the attempt is pending or running
    # Nothing is running: whether the next preflight or attempt may start.
    Decider(wait_for_preflight_time),  # it is not time yet for the next preflight
    Decider(wait_for_next_time),  # it is not time yet for the next attempt
    Decider(with_last_failure(wait_for_earlier_pods)),  # an earlier Pod has not ended
    Decider(with_last_failure(wait_for_class)),  # the class does not allow this job
    Decider(with_last_failure(wait_for_budget)),  # the namespace's accelerator hours are used up
    Decider(start_preflight),  # until one has succeeded
    Decider(with_last_failure(start_attempt)),  # always decides
)
ALWAYS: tuple[JobMutator, ...] = (
    Mutator(count_usage),  # the accelerator time that the namespace's budget is charged
    Mutator(wake_at_newer_report),  # reconciled again when the status may show the next report
    Mutator(wake_at_deadline),  # reconciled again when activeDeadlineSeconds are over
)
"""What follows every decision."""

PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Validating",
        Reason.WAITING_FOR_DATASET: "Validating",
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
    return decided(POLICIES, observed, observed.status, _phase, now, ALWAYS)


def rests_on_absence(observed: ObservedFineTuneJob, plan: JobPlan) -> bool:
    """Whether the plan is right only if nothing runs, or has begun to, of which no watch has told."""
    ended = {end.number for end in observed.status.ended_attempts}
    replaced = [end for end in plan.status.ended_attempts if end.outcome == "Replaced" and end.number not in ended]
    is_first = _is_first(observed.status, plan.status)
    return bool(replaced) or leftovers.rests_on_absence(observed.status, observed.jobs, plan, is_first=is_first)


def _is_first(before: FineTuneJobStatus, after: FineTuneJobStatus) -> bool:
    """Whether nothing was ever started but the first preflight, which has succeeded if there is one."""
    if before.attempt is not None or before.history:
        return False
    return before.preflight is None or (before.preflight.try_number == 1 and preflight_succeeded(after))


def _phase(decision: JobDecision, readiness: Readiness) -> Phase:
    status, before = decision.status, decision.status.phase or "Validating"
    return before if decision.keeps_phase else PHASES.of(readiness, progress_reason(status), before)
