"""status.phase of a FineTuneJob: it follows from the reason of its conditions, by one table."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptState, FineTuneJobStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.phases import Phases
from finetune_operator.finetunejob.attempt_state import attempt_state, preflight_succeeded

PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Validating",
        Reason.VALIDATING: "Validating",
        Reason.QUEUED: "Queued",
        Reason.TRAINING: "Training",
        Reason.RETRYING: "Retrying",
        Reason.SUSPENDED: "Suspended",
        Reason.SUCCEEDED: "Succeeded",
    },
    stays=frozenset({Reason.STOPPING, Reason.DELETING}),
    failed="Failed",
)
"""A diagnosis leaves the run in the phase of what it does meanwhile (progress_reason)."""
_REASON_OF_ATTEMPT: Mapping[AttemptState | None, Reason] = {
    None: Reason.QUEUED,
    "Pending": Reason.QUEUED,
    "Running": Reason.TRAINING,
    "Suspended": Reason.QUEUED,
    "Superseded": Reason.QUEUED,
    "Replaced": Reason.QUEUED,
    "Failed": Reason.RETRYING,
    "Disrupted": Reason.RETRYING,
    "Succeeded": Reason.RETRYING,  # But without a result, or the run would be over.
}


def progress_reason(status: FineTuneJobStatus) -> Reason:
    """What the run does while nothing keeps it from doing so: the reason of Ready then."""
    return _REASON_OF_ATTEMPT[attempt_state(status)] if preflight_succeeded(status) else Reason.VALIDATING


def phase_of(status: FineTuneJobStatus, readiness: Readiness) -> Phase:
    """The phase that goes with this readiness."""
    return PHASES.of(readiness, progress_reason(status), status.phase or "Validating")
