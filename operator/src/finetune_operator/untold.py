"""How a run that failed ended, told again where the conditions don't say it.

Another version may have been unable to read the object for a while, and said so in their place; an older one did not
know the condition Failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import FailureStatus
from finetune_operator.pod_diagnosis import failure_words
from finetune_operator.status import Standing, failed, known_reason

UNREAD = (Reason.STATUS_UNREADABLE, Reason.INVALID_SPEC)
"""What a version says of an object that it can't read."""


def untold_failure(conditions: Sequence[Condition], found: FailureStatus | None) -> Standing | None:
    """The end of a failed run with this diagnosis; None where the conditions tell it."""
    by_type = {condition.type: condition for condition in conditions}
    is_ready, is_stalled, is_failed = (
        by_type.get(kind) for kind in (ConditionType.READY, ConditionType.STALLED, ConditionType.FAILED)
    )
    if is_failed is not None and is_failed.status == "True":
        if is_stalled is not None and (is_stalled.status, is_stalled.reason) == ("True", is_failed.reason):
            return None
        return failed(known_reason(is_failed.reason), is_failed.message)
    if is_ready is not None and is_ready.reason not in UNREAD:
        return failed(known_reason(is_ready.reason), is_ready.message)
    if found is not None:
        return failed(known_reason(found.reason), failure_words(found))
    return failed(Reason.FAILED, "The run has failed. Change spec.runId to run again.")
