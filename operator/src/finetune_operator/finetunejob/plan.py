"""What to do next for a FineTuneJob: every policy, in order (docs/explanation/lifecycle.md).

A mutator writes down what has happened. A decider may say what is to be done; the first that does ends the first list.
"""

from __future__ import annotations

from datetime import datetime

from finetune_operator.core.plan import Plan
from finetune_operator.finetunejob.limits import count_usage
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.active_deadline import end_at_deadline, stop_clock, wake_at_deadline
from finetune_operator.finetunejob.policies.attempt import record_start, run_attempt
from finetune_operator.finetunejob.policies.attempt_outcome import record_outcome
from finetune_operator.finetunejob.policies.preflight import record_preflight, run_preflight
from finetune_operator.finetunejob.policies.progress import record_progress
from finetune_operator.finetunejob.policies.result import succeed
from finetune_operator.finetunejob.policies.retry_limit import back_off, end_at_retry_limit, end_without_image
from finetune_operator.finetunejob.policies.run_id import begin_run, refuse_run_id, stop_previous_run
from finetune_operator.finetunejob.policies.starting_model import record_starting_model, wait_for_model
from finetune_operator.finetunejob.policies.suspend import suspend
from finetune_operator.finetunejob.policies.ttl_seconds_after_finished import keep_finished
from finetune_operator.finetunejob.policy import Decider, JobPlan, Mutator, carried_out

UNTIL_DECIDED: tuple[Mutator | Decider, ...] = (
    Mutator(record_progress),  # step, loss and checkpoints, as the Pods of the newest attempt report them
    Decider(keep_finished),  # a finished run stays as it is until runId changes; ttlSecondsAfterFinished
    Decider(refuse_run_id),  # a spec that no run may begin or go on with: what is known stays, and what runs goes on
    Mutator(record_outcome),  # how the running attempt ended: Succeeded, Failed or Disrupted
    Decider(succeed),  # Succeeded: the run has its result
    Decider(end_without_image),  # an image that can't be pulled
    Decider(end_at_retry_limit),  # Failed: more often than retryLimit, or where another attempt can't help
    Mutator(back_off),  # when the attempt after one that failed starts
    Decider(stop_previous_run),  # another runId: the Pods of the run before end first
    Mutator(begin_run),  # the run before goes into the history, and a new one begins
    Mutator(stop_clock),  # the time that counts for activeDeadlineSeconds
    Decider(suspend),  # spec.suspend: what runs is stopped, and nothing starts
    Decider(end_at_deadline),  # activeDeadlineSeconds are over
    Decider(wait_for_model),  # the job that makes the model to start from has no result yet
    Mutator(record_starting_model),  # its result, the same for all attempts of the run
    Mutator(record_preflight),  # what the preflight Pod reported
    Decider(run_preflight),  # Validating: dataset, model and storage are read before an accelerator is asked for
    Mutator(record_start),  # whether the Pods of the attempt run
    Decider(run_attempt),  # Queued, Training, Retrying: one attempt runs, or the next one starts; always decides
)
WHATEVER_WAS_DECIDED: tuple[Mutator, ...] = (
    Mutator(count_usage),  # the accelerator time of the namespace's budget
    Mutator(wake_at_deadline),  # the object is looked at again when activeDeadlineSeconds are over
)


def plan(observed: ObservedFineTuneJob, now: datetime) -> JobPlan:
    """The writes that bring the job one step further."""
    found = _decided(observed, now)
    for mutator in WHATEVER_WAS_DECIDED:
        found = mutator.run(observed, found, now)
    return found


def _decided(observed: ObservedFineTuneJob, now: datetime) -> JobPlan:
    found: JobPlan = Plan(observed.status)
    for policy in UNTIL_DECIDED:
        if isinstance(policy, Mutator):
            found = policy.run(observed, found, now)
        elif (decision := policy.run(observed, found.status, now)) is not None:
            return carried_out(observed, found, decision, now)
    raise AssertionError("the last policy always decides")
