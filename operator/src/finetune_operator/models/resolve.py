"""Model references of specs, resolved to what a Pod loads."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Result
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness, progressing, stalled


@dataclass(frozen=True)
class TrainedOn:
    """The revision of a Dataset that the FineTuneJob of that name has trained on."""

    job: str
    revision: PinnedRevision


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can be loaded now; `base` is what it was tuned from, if a job of ours made it."""

    source: ModelSource
    base: ModelSource | None = None
    trained_on: TrainedOn | None = None
    """None: not on a Dataset, or not by a job of ours."""


@dataclass(frozen=True)
class Undecided(Readiness):
    """The job that produces the model can't be read, or rejects its spec.

    That says nothing about the model: what runs with it continues, and nothing new starts.
    """


def tuned_model(name: str, spec: FineTuneJobSpec, status: FineTuneJobStatus) -> ResolvedModel | Readiness:
    """The result of a fine-tuning job's newest run, or what it waits for."""
    unfinished = without_result(name, spec, status)
    if unfinished is not None:
        return unfinished
    assert status.result is not None, "without_result says so otherwise"
    return _loadable(name, status.result, trained_on(name, status))


def without_result(name: str, spec: FineTuneJobSpec, status: FineTuneJobStatus) -> Readiness | None:
    """Why the newest run has no result; None if it has one."""
    if status.phase == "Failed" and status.run_id == spec.run_id:
        return stalled(
            Reason.WAITING_FOR_MODEL,
            f"FineTuneJob {name!r} failed: see `kubectl describe ftj {name}`. Waiting for a new run of it.",
        )
    if status.phase == "Cancelled" and status.run_id == spec.run_id:
        return stalled(
            Reason.WAITING_FOR_MODEL,
            f"FineTuneJob {name!r} was cancelled. To run it again, set its spec.cancel to false and change its "
            "spec.runId.",
        )
    if any(run.run_id == spec.run_id for run in status.history):
        return undecided(
            f"FineTuneJob {name!r} rejects its spec: runId {spec.run_id!r} was used by an earlier run "
            f"(`kubectl describe ftj {name}`)."
        )
    if status.run_id != spec.run_id:
        return progressing(
            Reason.WAITING_FOR_MODEL, f"FineTuneJob {name!r} is not complete: its run {spec.run_id!r} has not begun."
        )
    if status.result is None:
        return progressing(Reason.WAITING_FOR_MODEL, f"FineTuneJob {name!r} is not complete ({status.phase or 'new'}).")
    return None


def trained_on(name: str, status: FineTuneJobStatus) -> TrainedOn | None:
    """What the training examples of the job's run were, if a datasetRef named them."""
    pinned = status.dataset_revisions.training if status.dataset_revisions is not None else None
    return None if pinned is None else TrainedOn(name, pinned)


def _loadable(name: str, result: Result, data: TrainedOn | None) -> ResolvedModel | Readiness:
    base = ModelSource(uri=result.base_model_uri)
    if result.adapter_type not in ("Full", "LoRA"):
        return undecided(
            f"The result of FineTuneJob {name!r} is of a type that this version of the operator can't load "
            f"({result.adapter_type}). Upgrade the operator."
        )
    if result.adapter_type == "Full":
        return ResolvedModel(ModelSource(uri=result.uri, digest=result.digest), base, data)
    source = ModelSource(uri=result.base_model_uri, adapter_uri=result.uri, digest=result.digest)
    return ResolvedModel(source, base, data)


def undecided(message: str) -> Undecided:
    """Wait until the job is fixed."""
    return Undecided(ready=False, reason=Reason.WAITING_FOR_MODEL, message=message, stalled=True)
