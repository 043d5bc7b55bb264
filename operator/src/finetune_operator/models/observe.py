"""Reading what a spec names: its model (a URI, a FineTuneJob, the best trial of a FineTuneSweep, an endpoint), and its
Datasets."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.dataset_reference import DatasetRef, PinnedRevision
from finetune_api.evaluation import CheckpointChoices, EvaluatedModel, ModelReference
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Model, Teacher
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus
from finetune_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.pod_contracts.run import EndpointConfig, ModelSource
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.core.references import Unreadable, read_referenced
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import DATASETS, FINE_TUNE_JOBS, FINE_TUNE_SWEEPS, MODEL_DEPLOYMENTS, Object
from finetune_operator.models.checkpoints import checkpoint_models
from finetune_operator.models.datasets import FoundDataset, no_such_dataset, pinned_revision, unreadable_dataset
from finetune_operator.models.endpoints import deployed_endpoint, endpoint_config, listed_model
from finetune_operator.models.resolve import ResolvedModel, tuned_model, undecided
from finetune_operator.models.sweeps import best_of_sweep, pinned, without_trial


async def resolve_model(
    reader: Reader, namespace: str, reference: ModelReference | EvaluatedModel | Model | Teacher
) -> ResolvedModel | Readiness:
    """The model, or a Readiness that says what it waits for."""
    if not isinstance(reference, Model | Teacher) and reference.sweep_ref is not None:
        return await _best_of_sweep(reader, namespace, reference.sweep_ref.name)
    if reference.fine_tune_job_ref is None:
        return ResolvedModel(ModelSource(uri=reference.uri or ""))
    name = reference.fine_tune_job_ref.name
    checkpoint = None if isinstance(reference, Model | Teacher) else reference.checkpoint
    if checkpoint is not None:
        chosen = await resolve_checkpoints(reader, namespace, name, checkpoint)
        return chosen if isinstance(chosen, Readiness) else next(iter(chosen.values()))
    found = await _job(reader, namespace, name)
    return found if isinstance(found, Readiness) else tuned_model(name, *found)


async def resolve_checkpoints(
    reader: Reader, namespace: str, job: str, choice: CheckpointChoices
) -> dict[int, ResolvedModel] | Readiness:
    """Checkpoints of a job as models by step, or a Readiness that says what they wait for."""
    found = await _job(reader, namespace, job)
    return found if isinstance(found, Readiness) else checkpoint_models(job, *found, choice)


async def _best_of_sweep(reader: Reader, namespace: str, name: str) -> ResolvedModel | Readiness:
    sweep = await reader.get(FINE_TUNE_SWEEPS, namespace, name)
    if sweep is None:
        return stalled(
            Reason.REFERENCE_NOT_FOUND, f"FineTuneSweep {name!r} does not exist in namespace {namespace!r}. Create it."
        )
    found = read_referenced(sweep, FineTuneSweepSpec, FineTuneSweepStatus)
    if isinstance(found, Unreadable):
        return undecided(f"FineTuneSweep {name!r} {found.message}")
    best = best_of_sweep(name, *found)
    if isinstance(best, Readiness):
        return best
    job = await reader.get(FINE_TUNE_JOBS, namespace, best.fine_tune_job_name)
    if job is None or not is_controlled_by(job, sweep["metadata"]["uid"]):
        return without_trial(name, best)
    trial = _readable(best.fine_tune_job_name, job)
    model = trial if isinstance(trial, Readiness) else tuned_model(best.fine_tune_job_name, *trial)
    return model if isinstance(model, Readiness) else pinned(name, best, model)


async def _job(reader: Reader, namespace: str, name: str) -> tuple[FineTuneJobSpec, FineTuneJobStatus] | Readiness:
    job = await reader.get(FINE_TUNE_JOBS, namespace, name)
    if job is None:
        return stalled(
            Reason.REFERENCE_NOT_FOUND, f"FineTuneJob {name!r} does not exist in namespace {namespace!r}. Create it."
        )
    return _readable(name, job)


def _readable(name: str, job: Object) -> tuple[FineTuneJobSpec, FineTuneJobStatus] | Readiness:
    found = read_referenced(job, FineTuneJobSpec, FineTuneJobStatus)
    return undecided(f"FineTuneJob {name!r} {found.message}") if isinstance(found, Unreadable) else found


async def resolve_endpoint(
    reader: Reader, namespace: str, class_: ResolvedClass, name: str, asked_by: str
) -> EndpointConfig | Readiness:
    """How a model of the class is asked, or a Readiness that says what it waits for."""
    model = listed_model(class_, name, asked_by)
    if isinstance(model, Readiness):
        return model
    reference = model.model_deployment_ref
    if reference is None:
        return endpoint_config(model)
    place = reference.namespace or namespace
    text = f"ModelDeployment {reference.name!r} in namespace {place!r}"
    deployment = await reader.get(MODEL_DEPLOYMENTS, place, reference.name)
    if deployment is None:
        message = f"{text}, which serves the class's model {name!r}, does not exist. Create it."
        return stalled(Reason.REFERENCE_NOT_FOUND, message)
    found = read_referenced(deployment, ModelDeploymentSpec, ModelDeploymentStatus)
    if isinstance(found, Unreadable):
        return undecided(f"{text} {found.message}")
    return deployed_endpoint(model, text, found[1])


async def resolve_dataset(reader: Reader, namespace: str, reference: DatasetRef) -> PinnedRevision | Readiness:
    """The revision that the Dataset has now, or a Readiness that says what it waits for."""
    return (await resolve_datasets(reader, namespace, {"": reference}))[""]


async def resolve_datasets(
    reader: Reader, namespace: str, references: Mapping[str, DatasetRef]
) -> dict[str, PinnedRevision | Readiness]:
    """The same of several. Each Dataset is read once: its splits are of one revision, also while it gets another."""
    found = {
        name: await _dataset(reader, namespace, name) for name in sorted({one.name for one in references.values()})
    }
    return {field: _pinned(found[reference.name], reference) for field, reference in references.items()}


async def _dataset(reader: Reader, namespace: str, name: str) -> FoundDataset | Readiness:
    body = await reader.get(DATASETS, namespace, name)
    if body is None:
        return no_such_dataset(name, namespace)
    found = read_referenced(body, DatasetSpec, DatasetStatus)
    if isinstance(found, Unreadable):
        return unreadable_dataset(name, found.message)
    return FoundDataset(name, body["metadata"]["uid"], *found)


def _pinned(found: FoundDataset | Readiness, reference: DatasetRef) -> PinnedRevision | Readiness:
    return found if isinstance(found, Readiness) else pinned_revision(found, reference)
