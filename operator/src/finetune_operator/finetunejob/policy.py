"""What a policy is: a mutator writes down what has happened, a decider says what is to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptState, FineTuneJobStatus, Phase
from finetune_operator.core.conditions import Readiness, sentence
from finetune_operator.core.conditions import failed as failed_readiness
from finetune_operator.core.plan import Child, Plan, planned, unchanged
from finetune_operator.finetunejob.attempt_state import attempt_state, ended, running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.kube.resources import Object

JobPlan = Plan[FineTuneJobStatus]


@dataclass(frozen=True)
class Decision:
    """What is to be done, where the run stands meanwhile, and the status that goes with it."""

    status: FineTuneJobStatus
    readiness: Readiness | None
    """None: the conditions stay as they are."""
    create: tuple[Object, ...] = ()
    delete: tuple[Child, ...] = ()
    requeue_at: datetime | None = None
    keeps_phase: bool = False
    """The run itself does not move, whatever the reason of its conditions."""


@dataclass(frozen=True)
class Mutator:
    """Changes the plan, its status most of all, and never ends the walk through the policies."""

    run: Callable[[ObservedFineTuneJob, JobPlan, datetime], JobPlan]


@dataclass(frozen=True)
class Decider:
    """Ends the walk with a decision; None leaves it to the policies that follow."""

    run: Callable[[ObservedFineTuneJob, FineTuneJobStatus, datetime], Decision | None]


PHASE_OF_REASON: Mapping[Reason, Phase] = {
    Reason.WAITING_FOR_MODEL: "Validating",
    Reason.VALIDATING: "Validating",
    Reason.TRAINING: "Training",
    Reason.RETRYING: "Retrying",
    Reason.SUSPENDED: "Suspended",
    Reason.SUCCEEDED: "Succeeded",
}
"""Any other reason (Queued, and every diagnosis) leaves the run where its preflight and its attempt are."""
PHASE_OF_ATTEMPT: Mapping[AttemptState | None, Phase] = {
    None: "Queued",
    "Pending": "Queued",
    "Running": "Training",
    "Suspended": "Queued",
    "Superseded": "Queued",
    "Replaced": "Queued",
    "Failed": "Retrying",
    "Disrupted": "Retrying",
}


def phase_of(status: FineTuneJobStatus, readiness: Readiness) -> Phase:
    """The phase that goes with this readiness."""
    if readiness.failed:
        return "Failed"
    if readiness.reason in PHASE_OF_REASON and not readiness.stalled:
        return PHASE_OF_REASON[readiness.reason]
    if not preflight_succeeded(status):
        return "Validating"
    return PHASE_OF_ATTEMPT.get(attempt_state(status), "Retrying")


def preflight_succeeded(status: FineTuneJobStatus) -> bool:
    """Whether all that the run needs was found, and its hyperparameters are known."""
    return status.preflight is not None and bool(status.preflight.succeeded) and status.resolved is not None


def run_failed(status: FineTuneJobStatus, reason: Reason, message: str, now: datetime) -> Decision:
    """The end of the run, for good: only another runId starts again."""
    attempt = running_attempt(status)
    if attempt is not None:
        status = ended(status, attempt, "Failed", now, reason=reason, message=message)
    if "runId" not in message:
        message = f"{sentence(message)} Change spec.runId to run again."
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    # Once this is written, the Jobs that still run are stale.
    return Decision(status, failed_readiness(reason, message), requeue_at=now)


def carried_out(observed: ObservedFineTuneJob, plan: JobPlan, decision: Decision, now: datetime) -> JobPlan:
    """The plan with the writes, the phase and the conditions of a decision."""
    status, readiness = decision.status, decision.readiness
    if readiness is None:
        decided = unchanged(observed, status, delete=decision.delete, requeue_at=decision.requeue_at)
    else:
        phase = (status.phase or "Validating") if decision.keeps_phase else phase_of(status, readiness)
        decided = planned(
            observed,
            status,
            phase,
            readiness,
            now,
            create=decision.create,
            delete=decision.delete,
            requeue_at=decision.requeue_at,
        )
    return replace(decided, merge=plan.merge)
