"""Which object names which, so that a change of a class, a job or an evaluation wakes what waits for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from finetune_api.base import ApiModel
from finetune_api.kinds import DATASET, FINE_TUNE_CLASS, FINE_TUNE_JOB, FINE_TUNE_SWEEP
from finetune_api.lifecycle import KindStatus
from finetune_api.lifecycle.unreadable import fields_of, named

Spec = TypeVar("Spec", bound=ApiModel)
Status = TypeVar("Status", bound=KindStatus)


class ObjectKey(NamedTuple):
    """An object of one of our kinds; namespace is empty for cluster-scoped ones."""

    kind: str
    namespace: str
    name: str


DEFAULT_CLASS = ObjectKey(FINE_TUNE_CLASS.name, "", "")
"""Stands for whichever class is the default."""


def class_reference(body: Mapping[str, Any]) -> frozenset[ObjectKey]:
    """The class that an object asks for, and the ones that it runs with or has data by (status)."""
    status = body.get("status") or {}
    used = [status, *(folder for folder in status.get("storageFolders") or [] if isinstance(folder, Mapping))]
    names = [body.get("spec", {}).get("className"), *(one.get("className") for one in used)]
    asked = frozenset() if names[0] else frozenset({DEFAULT_CLASS})
    return asked | frozenset(DEFAULT_CLASS._replace(name=name) for name in names if name and isinstance(name, str))


def model_references(body: Mapping[str, Any], *models: Mapping[str, Any] | None) -> frozenset[ObjectKey]:
    """The FineTuneJobs and FineTuneSweeps whose results these models of an object are."""
    namespace = body["metadata"].get("namespace", "")
    kinds = (("fineTuneJobRef", FINE_TUNE_JOB), ("sweepRef", FINE_TUNE_SWEEP))
    return frozenset(
        ObjectKey(kind.name, namespace, model[field]["name"])
        for field, kind in kinds
        for model in models
        if model and model.get(field)
    )


def dataset_references(body: Mapping[str, Any], *sources: Mapping[str, Any] | None) -> frozenset[ObjectKey]:
    """The Datasets whose splits these sources of an object are."""
    namespace = body["metadata"].get("namespace", "")
    return frozenset(
        ObjectKey(DATASET.name, namespace, source["datasetRef"]["name"])
        for source in sources
        if source and source.get("datasetRef")
    )


class References:
    """The newest references of every object seen, and their reverse."""

    def __init__(self) -> None:
        self._outgoing: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._incoming: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)

    def update(self, source: ObjectKey, targets: frozenset[ObjectKey]) -> None:
        """The object now refers to exactly these."""
        before = self._outgoing.get(source, frozenset())
        for gone in before - targets:
            self._incoming[gone].discard(source)
            if not self._incoming[gone]:
                del self._incoming[gone]
        for new in targets - before:
            self._incoming[new].add(source)
        if targets:
            self._outgoing[source] = targets
        else:
            self._outgoing.pop(source, None)

    def referrers(self, target: ObjectKey) -> frozenset[ObjectKey]:
        """The objects that refer to this one."""
        return frozenset(self._incoming.get(target, ()))


@dataclass(frozen=True)
class Unreadable:
    """A referenced object that another version of the operator wrote; `message`: the end of a sentence about it."""

    message: str


def read_referenced(
    found: Mapping[str, Any], spec: type[Spec], status: type[Status]
) -> tuple[Spec, Status] | Unreadable:
    """Spec and status of an object that another one names, which any version may have written."""
    part = "spec"
    try:
        asked = spec.from_another_version(found["spec"])
        part = "status"
        return asked, status.from_another_version(found.get("status", {}))
    except ValidationError as error:
        return Unreadable(f"can't be read by this version of the operator: {named(fields_of(error), part)}.")
