"""The best trial of a FineTuneSweep as a model: the result that it had when it was measured, and no other."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import BestTrial, FineTuneSweepSpec, FineTuneSweepStatus
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.models.resolve import ResolvedModel, undecided


def best_of_sweep(name: str, spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> BestTrial | Readiness:
    """The best trial of the newest run, or what is waited for."""
    if spec.mode == "LearningCurve":
        return stalled(
            Reason.WAITING_FOR_MODEL,
            f"FineTuneSweep {name!r} has mode LearningCurve, which chooses no model. Refer to a FineTuneJob "
            "(fineTuneJobRef), or to a sweep of another mode.",
        )
    if status.run_id != spec.run_id:
        return progressing(
            Reason.WAITING_FOR_MODEL, f"FineTuneSweep {name!r} is not complete: its run {spec.run_id!r} has not begun."
        )
    if status.completion_time is None:
        phase = status.phase or "new"
        return progressing(Reason.WAITING_FOR_MODEL, f"FineTuneSweep {name!r} is not complete ({phase}).")
    if status.phase not in ("Succeeded", "Failed", "Cancelled"):
        return undecided(f"FineTuneSweep {name!r} is {status.phase}, which this version of the operator does not know.")
    if status.phase != "Succeeded" or status.best is None:
        ended = "was cancelled" if status.phase == "Cancelled" else "failed"
        return stalled(
            Reason.WAITING_FOR_MODEL,
            f"FineTuneSweep {name!r} {ended}: see `kubectl describe fts {name}`. Waiting for a new run of it (runId).",
        )
    return status.best


def without_trial(name: str, best: BestTrial) -> Readiness:
    """The FineTuneJob of the best trial is gone, or is not the sweep's."""
    return stalled(
        Reason.REFERENCE_NOT_FOUND,
        f"FineTuneSweep {name!r} has no FineTuneJob {best.fine_tune_job_name!r} any more, its best trial. Run the "
        "sweep again (runId).",
    )


def pinned(name: str, best: BestTrial, model: ResolvedModel) -> ResolvedModel | Readiness:
    """The model, if it is still what the sweep has measured."""
    if best.digest is not None and model.source.digest == best.digest:
        return model
    measured = "was found to be the best" if best.digest else "was found to be the best, whose digest is not known"
    return stalled(
        Reason.WAITING_FOR_MODEL,
        f"The result of FineTuneJob {best.fine_tune_job_name!r} may be another one than when it {measured} by "
        f"FineTuneSweep {name!r}. Refer to the job itself (fineTuneJobRef), or run the sweep again (runId).",
    )
