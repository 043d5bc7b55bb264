"""The condition Failed of a run that failed, where the conditions don't have it.

Another version may have been unable to read the object for a while, and said so in their place; an older one did not
know the condition Failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.failure import FailureStatus
from finetune_operator.core.conditions import Readiness, failed, failure_message, known_reason

UNREAD = (Reason.STATUS_UNREADABLE, Reason.INVALID_SPEC)
"""What a version says of an object that it can't read."""


def missing_failure(conditions: Sequence[Condition], found: FailureStatus | None) -> Readiness | None:
    """The end of a failed run with this diagnosis; None where the conditions have it."""
    held = {condition.type: condition.reason for condition in conditions if condition.status == "True"}
    is_complete = ConditionType.FAILED in held and held.get(ConditionType.STALLED) == held[ConditionType.FAILED]
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
