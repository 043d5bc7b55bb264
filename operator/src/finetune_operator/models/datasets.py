"""The split of a Dataset that a datasetRef names: the revision that it has, or what is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetSpec, DatasetStatus, Revision
from finetune_api.dataset_reference import DatasetRef, PinnedRevision
from finetune_operator.core.conditions import Readiness, progressing, stalled


@dataclass(frozen=True)
class FoundDataset:
    """A Dataset, read."""

    name: str
    uid: str
    spec: DatasetSpec
    status: DatasetStatus


def pinned_revision(dataset: FoundDataset, reference: DatasetRef) -> PinnedRevision | Readiness:
    """The revision of the Dataset's newest run, to be read whatever becomes of the Dataset; or what it waits for."""
    found = _revision(dataset)
    if isinstance(found, Readiness):
        return found
    splits = [split.name for split in found.splits]
    if reference.split not in splits:
        return stalled(
            Reason.REFERENCE_NOT_FOUND,
            f"Dataset {dataset.name!r} has no {reference.split} split: its revision has {_listed(splits)}. Name one of "
            "these (datasetRef.split) with a changed spec.runId, or give the Dataset such a split (its spec.split) "
            "with a changed spec.runId of its own.",
        )
    return PinnedRevision(name=dataset.name, uid=dataset.uid, split=reference.split, digest=found.digest, uri=found.uri)


def no_such_dataset(name: str, namespace: str) -> Readiness:
    """The Dataset does not exist."""
    return stalled(
        Reason.REFERENCE_NOT_FOUND, f"Dataset {name!r} does not exist in namespace {namespace!r}. Create it."
    )


def unreadable_dataset(name: str, message: str) -> Readiness:
    """Another version of the operator wrote it."""
    return stalled(Reason.WAITING_FOR_DATASET, f"Dataset {name!r} {message}")


def _revision(dataset: FoundDataset) -> Revision | Readiness:
    name, spec, status = dataset.name, dataset.spec, dataset.status
    if status.run_id != spec.run_id:
        return progressing(
            Reason.WAITING_FOR_DATASET, f"Dataset {name!r} is not complete: its run {spec.run_id!r} has not begun."
        )
    if status.phase == "Failed":
        return stalled(
            Reason.WAITING_FOR_DATASET,
            f"Dataset {name!r} failed: see `kubectl describe ftds {name}`. Waiting for a new run of it.",
        )
    if status.phase == "Cancelled":
        return stalled(
            Reason.WAITING_FOR_DATASET,
            f"Dataset {name!r} was cancelled. To build it, set its spec.cancel to false and change its spec.runId.",
        )
    if status.revision is None or status.completion_time is None:
        return progressing(Reason.WAITING_FOR_DATASET, f"Dataset {name!r} is not complete ({status.phase or 'new'}).")
    return status.revision


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
