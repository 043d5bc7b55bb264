"""Plans of a FineTuneJob within its life, and the states that they begin from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, Progress, Usage
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    NOW,
    RESULT,
    Decided,
    Decision,
    ago,
    decided,
    earlier_conditions,
    ended_attempt,
    job_status,
    later,
    of_job,
    pod,
    preflight_status,
    trained_status,
)

PROGRESS = Progress(step=30, total_steps=750, percent=4, last_updated_time=ago(1))
SUSPENDED_STATUS: dict[str, Any] = {"phase": "Suspended", "conditions": earlier_conditions(Reason.SUSPENDED)}


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


IN_PREFLIGHT = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
IN_TRAINING = trained_status(conditions=earlier_conditions(Reason.TRAINING), progress=PROGRESS)


def carried_out(result: Decided, observed: ObservedFineTuneJob, **changes: Any) -> ObservedFineTuneJob:
    """What is observed once a decision's status is written; its deletions are told as `jobs` and `pods`."""
    return replace(observed, status=result.status, **changes)


def stopped(observed: ObservedFineTuneJob, running: str, phase: str) -> tuple[Decided, ObservedFineTuneJob]:
    """The stop is written down, then the Job goes, then its Pod saves: what is decided then, upon what is observed."""
    noted = decide(observed)
    assert noted.decision == Decision(phase, "Stopping", again_in=0, event="Normal Stopping")
    stopping = carried_out(noted, observed)
    deleted = decide(stopping)
    assert deleted.decision == Decision(phase, "Stopping", deletes=of_job(running), again_in=15)
    saving = carried_out(deleted, stopping, jobs=(), pods=(pod(running, deletion_time=later(40)),))
    waits = decide(saving)
    assert waits.decision == Decision(phase, "Stopping", again_in=15)
    return waits, saving


def stopped_status(**changes: Any) -> FineTuneJobStatus:
    """Suspended an hour ago."""
    times = {"start_time": ago(3720), "suspend_time": ago(3600)}
    suspended = {**SUSPENDED_STATUS, **times, "ended_attempts": [ended_attempt(1, "Suspended")]}
    return trained_status(**suspended | changes)


USAGE = Usage(month="2026-11", class_name="cpu", accelerator_seconds=7200, counted_time=ago(5))


def finished(**changes: Any) -> FineTuneJobStatus:
    return trained_status(
        **{
            "phase": "Succeeded",
            "result": RESULT,
            "completion_time": ago(100),
            "conditions": earlier_conditions(Reason.SUCCEEDED, ready=True),
            **changes,
        }
    )
