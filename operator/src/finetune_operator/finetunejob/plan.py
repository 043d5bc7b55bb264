"""What to do next for a FineTuneJob: the state machine, as a chain of concerns (docs/explanation/lifecycle.md)."""

from __future__ import annotations

from datetime import datetime

from finetune_operator.budgets.ledger import accounted
from finetune_operator.core.plan import Plan
from finetune_operator.finetunejob.attempts import attempt
from finetune_operator.finetunejob.clock import clock
from finetune_operator.finetunejob.completion import finished
from finetune_operator.finetunejob.concern import Concern, JobPlan
from finetune_operator.finetunejob.deadline import awake_at_deadline, deadline
from finetune_operator.finetunejob.history import rerun
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.preflight import preflight
from finetune_operator.finetunejob.refused import refused
from finetune_operator.finetunejob.reports import reports
from finetune_operator.finetunejob.starting_model import starting_model
from finetune_operator.finetunejob.suspension import suspension
from finetune_operator.finetunejob.verdict import verdict

CONCERNS: tuple[Concern, ...] = (
    finished,  # a finished run stays as it is until runId changes; its Pods go when their time has come
    reports,  # progress and checkpoints, as the Pods of the running attempt tell them
    refused,  # a spec that no run may begin or go on with: what is known stays, and what runs goes on
    verdict,  # how the attempt ended: with the result, for good, or to be tried again
    rerun,  # another runId: what runs is stopped, the run goes into the history, a new one begins
    clock,  # the time that counts for the deadline
    suspension,  # suspend: what runs is stopped, and nothing starts
    deadline,  # the run takes too long
    starting_model,  # the result of another job that the run goes on from is there
    preflight,  # dataset, model and storage are read before any accelerator is asked for
    attempt,  # one attempt runs, or the next one starts when class, budget and earlier Pods allow it
)
"""In this order; the first that has something to decide makes the plan, and the last one always does."""


def plan(observed: ObservedFineTuneJob, now: datetime) -> JobPlan:
    """The writes that bring the job one step further."""
    status = observed.status
    for concern in CONCERNS:
        step = concern(observed, status, now)
        if isinstance(step, Plan):
            step = awake_at_deadline(observed, step)
            return accounted(step, observed.budget, observed.owner, observed.status, now)
        status = step
    raise AssertionError("the last concern always decides")
