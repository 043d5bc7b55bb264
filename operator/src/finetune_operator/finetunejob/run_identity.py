"""Which run the spec asks for: that of the status, another one, or one that it can't have.

The current runId with a changed spec is rejected. It takes two updates between two reconciliations, because the API
server validates each update only against the one before it.
"""

from __future__ import annotations

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.digest import digest, without
from finetune_operator.finetunejob.observed import ObservedFineTuneJob


def run_key(status: FineTuneJobStatus) -> str:
    """The run's part of the names of Jobs and folders; the runId alone for runs that are older than digests."""
    run_id = status.run_id or ""
    return f"{run_id}-{status.run_digest}" if status.run_digest else run_id


def run_digest(spec: FineTuneJobSpec, number: int) -> str:
    """A digest of eight characters of the run's number and of all of the spec that can't change within a run."""
    return digest([number, without(spec, CHANGEABLE_WITHIN_A_RUN)], 8)


def next_run_number(status: FineTuneJobStatus) -> int:
    """The number of the run after the one of this status; the first one's is 1."""
    begun = status.run_number or len(status.history) + (status.run_id is not None)
    return begun + 1


def run_id_refusal(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> Readiness | None:
    """Why this spec can neither start nor continue a run; None if it can."""
    run_id = observed.spec.run_id
    if status.run_id == run_id:
        if not _is_changed(observed, status):
            return None
        return stalled(
            Reason.INVALID_SPEC,
            f"spec differs from the one that run {run_id!r} began with: it was changed, and runId was set back. Use a "
            "new runId to start a run with this spec.",
        )
    if all(run.run_id != run_id for run in status.history):
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.runId {run_id!r} was used by an earlier run (status.history) and can't be used again. Use a new one. "
        f"Until then, the status is that of run {status.run_id!r}.",
    )


def is_superseded(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the spec starts another run than the one of this status."""
    return status.run_id != observed.spec.run_id and run_id_refusal(observed, status) is None


def waits_for_another(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the run can't start because the job of a fineTuneJobRef has no result, or a Dataset no revision."""
    if any(isinstance(one, Readiness) for one in observed.datasets.values()) and status.dataset_revisions is None:
        return True
    waits_for_teacher = status.teacher is None and isinstance(observed.teacher, Readiness)
    return waits_for_teacher or (status.starting_model is None and isinstance(observed.model, Readiness))


def _is_changed(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the spec changed within the run.

    A generation that was already observed and accepted has not: another operator version may compute other digests.
    """
    if status.run_digest is None or status.run_number is None:
        return False
    was_accepted = status.observed_generation in (None, observed.generation) and not _was_refused(status)
    return not was_accepted and status.run_digest != run_digest(observed.spec, status.run_number)


def _was_refused(status: FineTuneJobStatus) -> bool:
    return any(
        one.type == ConditionType.STALLED and one.status == "True" and one.reason == Reason.INVALID_SPEC
        for one in status.conditions
    )
