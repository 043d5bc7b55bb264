"""status.datasetRevision: the revision of a Dataset that a run reads, and whether a candidate trained on another."""

from __future__ import annotations

from finetune_api.base import LINE_LENGTH
from finetune_api.dataset_reference import PinnedRevision
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.run_identity import is_same_run
from finetune_operator.models.resolve import ResolvedModel

ANOTHER_REVISION = "TrainedOnAnotherRevision"


def revision_to_read(observed: ObservedEvaluation) -> PinnedRevision | Readiness | None:
    """The revision that the run has pinned; before it begins, the one that the Dataset has. None without datasetRef."""
    if observed.spec.dataset.dataset_ref is None:
        return None
    recorded = observed.status.dataset_revision if is_same_run(observed) else None
    return recorded or observed.dataset


def trained_on_another_revision(observed: ObservedEvaluation, measured: PinnedRevision | None) -> list[str]:
    """A warning for each job that trained on another revision of the Dataset: the splits of two revisions may overlap.

    `measured`: what the run reads.
    """
    models = [model for _, model in observed.candidates]
    found = [model.trained_on for model in models if isinstance(model, ResolvedModel) and model.trained_on is not None]
    by_job = {one.job: one.revision for one in found}  # checkpoints of a job have the same one
    return [
        _trained_on(job, revision, measured)
        for job, revision in by_job.items()
        if measured is not None and revision.uid == measured.uid and revision.digest != measured.digest
    ]


def _trained_on(job: str, trained: PinnedRevision, measured: PinnedRevision) -> str:
    own = trained.model_copy(update={"split": measured.split})
    text = (
        f"{ANOTHER_REVISION}: FineTuneJob {job!r} trained on revision {trained.digest} of Dataset {measured.name!r}, "
        f"and this run reads the {measured.split} split of revision {measured.digest}, which may have examples that "
        "the job trained on. Train again (spec.runId of the job, or of its sweep), or evaluate the job's own revision, "
        f"if it has that split: change spec.runId, with dataset.uri: {own.file_uri} instead of datasetRef; "
        "sources.datasets of the class must allow it."
    )
    return text[:LINE_LENGTH]
