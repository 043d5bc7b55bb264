"""A spec that begins no run: with a runId that was used before, or with the run's own runId and something else in it.

The second is two changes between two looks: the API server compares each with the one before only. Nothing that is
known of the run is lost meanwhile, and what runs goes on: a spec that is set back finds it as it was.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import Standing, stalled
from finetune_operator.core.plan import planned
from finetune_operator.finetunejob.concern import Step
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_key import run_digest
from finetune_operator.finetunejob.suspension import suspension


def refusal(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> Standing | None:
    """Why no run begins or goes on with this spec; None where one may."""
    run_id = observed.spec.run_id
    if status.run_id == run_id:
        if not _is_changed(observed, status):
            return None
        return stalled(
            Reason.INVALID_SPEC,
            f"spec is not what run {run_id!r} began with: it was changed, and runId set back. Choose a runId that was "
            "not used yet, or set the rest back too.",
        )
    if all(run.run_id != run_id for run in status.history):
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.runId {run_id!r} is that of an earlier run (status.history), which does not run again by this name. "
        f"Choose one that was not used yet. Until then this object is about run {status.run_id!r}.",
    )


def refused(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """Decide nothing of a run in flight by another one's spec, but that it is to be suspended."""
    standing = refusal(observed, status)
    if standing is None:
        return status
    if observed.spec.suspend:
        return suspension(observed, status, now)
    return planned(observed, status, status.phase or "Validating", standing, now)


def _is_changed(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the spec changed within the run.

    One that was looked at since it changed last, and found good, is: a digest of another version tells nothing.
    """
    if status.run_digest is None or status.run_number is None:
        return False
    looked_at = status.observed_generation in (None, observed.generation) and not _was_refused(status)
    return not looked_at and status.run_digest != run_digest(observed.spec, status.run_number)


def _was_refused(status: FineTuneJobStatus) -> bool:
    return any(
        one.type == ConditionType.STALLED and one.status == "True" and one.reason == Reason.INVALID_SPEC
        for one in status.conditions
    )
