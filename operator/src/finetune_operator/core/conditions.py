"""Conditions follow from a Readiness, and Events from how conditions changed.

A failed run may lack the condition Failed: a version that could not read the object reported that instead, and older
versions did not have the condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from finetune_api.base import whole_seconds
from finetune_api.conditions import DIAGNOSES, REASON_MEANINGS, Condition, ConditionType, Reason
from finetune_api.lifecycle import FailureStatus

MESSAGE_LENGTH = 4096
UNREAD = (Reason.STATUS_UNREADABLE, Reason.INVALID_SPEC)
"""The reasons with which a version reports an object that it can't read."""
PASSED_THROUGH = (Reason.VALIDATING, Reason.QUEUED)
"""The reasons that every run has for a while before it trains."""


@dataclass(frozen=True)
class Readiness:
    """Where an object stands: ready, on its way, or stalled with a diagnosis."""

    ready: bool
    reason: Reason
    message: str
    stalled: bool = False
    failed: bool = False
    cancelled: bool = False
    """It was ended by spec.cancel. A Pod's report may name the reason Cancelled, too, but is never this."""


@dataclass(frozen=True)
class EventNote:
    """An Event to be recorded on the parent."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def first_missing(found: Iterable[object]) -> Readiness | None:
    """What is waited for of all that was looked up: what needs a change takes precedence over what only needs time."""
    missing = [one for one in found if isinstance(one, Readiness)]
    return next((one for one in missing if one.stalled), missing[0] if missing else None)


def ready(reason: Reason, message: str) -> Readiness:
    """What was asked for exists and can be used."""
    return Readiness(ready=True, reason=reason, message=message)


def progressing(reason: Reason, message: str | None = None) -> Readiness:
    """In progress: no action is needed."""
    return Readiness(ready=False, reason=reason, message=message or REASON_MEANINGS[reason])


def stalled(reason: Reason, message: str) -> Readiness:
    """It can't become ready without a change."""
    return Readiness(ready=False, reason=reason, message=message, stalled=True)


def failed(reason: Reason, message: str) -> Readiness:
    """The run is over for good: only another runId starts again."""
    return Readiness(ready=False, reason=reason, message=message, stalled=True, failed=True)


def suspended(more: str = "") -> Readiness:
    """The run is suspended, and nothing runs any more; `more`: a sentence with a leading space."""
    return progressing(Reason.SUSPENDED, f"spec.suspend is true; nothing is running.{more} Set it to false to resume.")


def cancelled(kept: str = "", sweep: str | None = None) -> Readiness:
    """The run was ended for good, as asked for; `kept`: a sentence about what stays, with a leading space.

    `sweep`: the FineTuneSweep whose trial it is, which takes no other run of it for a trial.
    """
    again = "Change spec.runId and set spec.cancel to false to run again."
    if sweep is not None:
        again = f"It is part of FineTuneSweep {sweep!r}, where another run of it would not count."
    message = f"spec.cancel was set.{kept} {again}"
    return replace(failed(Reason.CANCELLED, message), cancelled=True)


def sentence(text: str) -> str:
    """The text with a full stop, so that another sentence can follow."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def failure_message(found: FailureStatus) -> str:
    """What happened and what to change, for a condition's message."""
    return f"{sentence(found.message)} {found.suggestion or ''}".strip()[:MESSAGE_LENGTH]


def known_reason(text: str) -> Reason:
    """The reason of this name; Failed for one that another version of the operator wrote."""
    try:
        return Reason(text)
    except ValueError:
        return Reason.FAILED


def conditions(
    readiness: Readiness,
    previous: Sequence[Condition],
    *,
    generation: int,
    now: datetime,
    passed: Readiness | None = None,
) -> list[Condition]:
    """Ready and Stalled of a readiness, Failed where the run is over for good, and Passed where it is given.

    A diagnosis that stalls nothing (a limit that only caps) is shown in both conditions.
    Passed is Unknown where the reason is Inconclusive or BudgetExceeded. A transition time moves only when the status
    does.
    """
    found = [(ConditionType.READY, readiness.ready, readiness.reason, readiness.message)]
    if readiness.stalled or readiness.reason in DIAGNOSES:
        found.append((ConditionType.STALLED, readiness.stalled, readiness.reason, readiness.message))
    else:
        found.append((ConditionType.STALLED, False, Reason.PROGRESSING, REASON_MEANINGS[Reason.PROGRESSING]))
    if readiness.failed:
        found.append((ConditionType.FAILED, True, readiness.reason, readiness.message))
    if passed is not None:
        found.append((ConditionType.PASSED, passed.ready, passed.reason, passed.message))
    before = {condition.type: condition for condition in previous}
    result = []
    for kind, holds, reason, message in found:
        undecided = kind == ConditionType.PASSED and reason in (Reason.INCONCLUSIVE, Reason.BUDGET_EXCEEDED)
        status: Literal["True", "False", "Unknown"] = "Unknown" if undecided else "True" if holds else "False"
        old = before.get(kind)
        moved = old is None or old.status != status
        current = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message[:MESSAGE_LENGTH],
            observed_generation=generation,
            last_transition_time=whole_seconds(now) if moved or old is None else old.last_transition_time,
        )
        result.append(current.over(old))
    return [*result, *(one for one in previous if not is_known(one))]


def is_known(condition: Condition) -> bool:
    """Whether this version knows the condition's type, and so maintains it."""
    return isinstance(condition.type, ConditionType)


def transition_events(previous: Sequence[Condition], current: Sequence[Condition]) -> tuple[EventNote, ...]:
    """One Event when Ready or Stalled took another status or reason: Warning for a diagnosis, else Normal.

    None for Validating and Queued, through which every run passes, unless that is the end of a diagnosis.
    """
    before = {condition.type: (condition.status, condition.reason) for condition in previous}
    after = {condition.type: condition for condition in current}
    is_ready, is_stalled = after[ConditionType.READY], after[ConditionType.STALLED]
    was_stalled, diagnosis = before.get(ConditionType.STALLED, ("False", ""))
    if is_stalled.status == "True":
        if (was_stalled, diagnosis) != ("True", is_stalled.reason):
            asked_for = is_stalled.reason == Reason.CANCELLED
            return (EventNote("Normal" if asked_for else "Warning", is_stalled.reason, is_stalled.message),)
        return ()
    is_recorded = is_ready.reason not in PASSED_THROUGH or was_stalled == "True"
    if is_recorded and before.get(ConditionType.READY) != (is_ready.status, is_ready.reason):
        is_diagnosis = is_ready.status != "True" and is_ready.reason in DIAGNOSES
        return (EventNote("Warning" if is_diagnosis else "Normal", is_ready.reason, is_ready.message),)
    return ()


def missing_failure(conditions: Sequence[Condition], found: FailureStatus | None) -> Readiness | None:
    """The end of a failed run with this diagnosis; None where the conditions have it."""
    reasons = {condition.type: condition.reason for condition in conditions if condition.status == "True"}
    is_complete = (
        ConditionType.FAILED in reasons and reasons.get(ConditionType.STALLED) == reasons[ConditionType.FAILED]
    )
    return None if is_complete else failed_end(conditions, found)


def failed_end(conditions: Sequence[Condition], found: FailureStatus | None) -> Readiness:
    """Where a failed run stands, by what its conditions say of its end, or else by its diagnosis."""
    by_type = {condition.type: condition for condition in conditions}
    is_ready, is_failed = by_type.get(ConditionType.READY), by_type.get(ConditionType.FAILED)
    if is_failed is not None and is_failed.status == "True":
        return failed(known_reason(is_failed.reason), is_failed.message)
    if is_ready is not None and is_ready.reason not in UNREAD:
        return failed(known_reason(is_ready.reason), is_ready.message)
    if found is not None:
        return failed(known_reason(found.reason), failure_message(found))
    return failed(Reason.FAILED, "The run has failed. Change spec.runId to run again.")
