"""Reading what a spec names as its model."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.evaluation import ModelReference
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Model
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.references import Unreadable, read_referenced
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import FINE_TUNE_JOBS
from finetune_operator.models.resolve import ResolvedModel, tuned_model, undecided


async def resolve_model(reader: Reader, namespace: str, reference: ModelReference | Model) -> ResolvedModel | Readiness:
    """The model, or a Readiness that says what it waits for."""
    if reference.fine_tune_job_ref is None:
        return ResolvedModel(ModelSource(uri=reference.uri or ""))
    name = reference.fine_tune_job_ref.name
    job = await reader.get(FINE_TUNE_JOBS, namespace, name)
    if job is None:
        return stalled(
            Reason.REFERENCE_NOT_FOUND, f"FineTuneJob {name!r} does not exist in namespace {namespace!r}. Create it."
        )
    found = read_referenced(job, FineTuneJobSpec, FineTuneJobStatus)
    if isinstance(found, Unreadable):
        return undecided(f"FineTuneJob {name!r} {found.message}")
    return tuned_model(name, *found)
