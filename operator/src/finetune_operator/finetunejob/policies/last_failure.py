"""Why the try before failed: told for as long as something keeps the next one from starting (a node, quota, queue)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from finetune_api.finetunejob import EndedAttempt, FineTuneJobStatus
from finetune_operator.core.conditions import Readiness, sentence
from finetune_operator.finetunejob.attempt_state import JobDecision, attempt_state, preflight_succeeded
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.run import with_run_id_hint
from finetune_operator.pods.exit_diagnosis import failure_message
from finetune_operator.pods.retried_job import held_up

Decide = Callable[[ObservedFineTuneJob, FineTuneJobStatus, datetime], JobDecision | None]


def telling_last_failure(decide: Decide) -> Decide:
    """The same decision, whose conditions do not hide why the try before failed."""

    def told(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
        decision = decide(observed, status, now)
        if decision is None or decision.readiness is None:
            return decision
        return replace(decision, readiness=_with_last_failure(decision.status, decision.readiness))

    return told


def last_failure_message(status: FineTuneJobStatus) -> str:
    """Why the last preflight or attempt failed, with a space before it; empty while training runs, and without any."""
    if not preflight_succeeded(status):
        before = status.failure
        return "" if before is None else f" The last preflight failed: {before.reason}: {failure_message(before)}"
    records = [one for one in status.ended_attempts if one.outcome != "Replaced"]
    if attempt_state(status) == "Running" or not records or records[-1].outcome not in ("Failed", "Disrupted"):
        return ""
    return f" {end_message(records[-1])}"


def end_message(end: EndedAttempt) -> str:
    """How an attempt ended, and why; what Kubernetes calls it is in its message about a Pod already."""
    how = "failed" if end.outcome == "Failed" else "was disrupted"
    named = end.outcome == "Disrupted" and (end.reason or "") in (end.message or "")
    why = ": ".join(part for part in (None if named else end.reason, end.message) if part)
    return f"Attempt {end.number} {how} ({why})" if why else f"Attempt {end.number} {how}."


def _with_last_failure(status: FineTuneJobStatus, readiness: Readiness) -> Readiness:
    if not preflight_succeeded(status):
        return with_run_id_hint(held_up(readiness, status.failure))
    told = last_failure_message(status)
    return replace(readiness, message=f"{sentence(readiness.message)}{told}") if told else readiness
