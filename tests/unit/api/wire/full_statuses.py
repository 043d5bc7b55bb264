"""Statuses with everything in them that the models know, and where objects stand in them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from finetune_api.base import ApiModel
from finetune_api.dataset import DatasetStatus
from finetune_api.evaluation import EvaluationStatus
from finetune_api.finetuneclass import FineTuneClassStatus
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_api.lifecycle import KindStatus
from finetune_api.modeldeployment import ModelDeploymentStatus

MOMENT = "2026-11-22T12:00:00Z"
UNKNOWN = {"text": "x", "list": [1, {"a": {}}], "empty": []}
KINDS: tuple[type[KindStatus], ...] = (
    FineTuneJobStatus,
    EvaluationStatus,
    ModelDeploymentStatus,
    FineTuneClassStatus,
    FineTuneSweepStatus,
    DatasetStatus,
)
Path = tuple[str | int, ...]

_MAPS = ("candidateDigests", "values", "adapter")
"""`adapter`: of a checkpoint that is served, spec.adapter of its run; written as a whole, so nothing of it stays."""
_CONDITION = {"status": "True", "reason": "Valid", "message": "", "observedGeneration": 1, "lastTransitionTime": MOMENT}


def full_status(kind: type[KindStatus]) -> dict[str, Any]:
    """A status in which every object that there may be is there, and every list has an item."""
    conditions = [{"type": name, **_CONDITION} for name in ("Ready", "Stalled")]
    status = {**_sample(kind), "conditions": conditions}
    if "completionTime" in status:
        status["phase"] = "Failed"
    return status


def objects_within(status: dict[str, Any]) -> list[Path]:
    """Where objects stand in a status, but for the conditions and the maps, whose keys are no fields of ours."""
    return [path for path in _paths(status) if path and path[0] != "conditions" and path[-1] not in _MAPS]


def with_unknown_fields(status: dict[str, Any]) -> dict[str, Any]:
    """The status with a field in each of its objects that this version does not know."""
    result = copy.deepcopy(status)
    for path in [(), *objects_within(status), *(("conditions", n) for n in range(len(status["conditions"])))]:
        at(result, path)["addedLater"] = copy.deepcopy(UNKNOWN)
    return result


def without(status: dict[str, Any], path: Path) -> dict[str, Any]:
    """The status without what stands there; an item is taken out of its list."""
    result = copy.deepcopy(status)
    del at(result, path[:-1])[path[-1]]
    return result


def replaced(status: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(status)
    at(result, path[:-1])[path[-1]] = value
    return result


def at(value: Any, path: Path) -> Any:
    """What stands there."""
    for step in path:
        value = value[step]
    return value


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from _paths(item, (*path, step))


def _sample(annotation: Any) -> Any:
    """A value of this type, with all of its fields."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        fields = annotation.model_fields.items()
        return {field.alias or name: _sample(field.rebuild_annotation()) for name, field in fields}
    inner = [part for part in get_args(annotation) if part is not NoneType and _is_object(part)]
    if inner:
        one = _sample(inner[0])
        return one if getattr(annotation, "__origin__", None) is not list else [one]
    for value in (1, 0.5, True, MOMENT, "2026-11", "Failed", *_choices(annotation), [], {}):
        try:
            TypeAdapter(annotation).validate_python(value, strict=not isinstance(value, str))
        except ValidationError:
            continue
        return value
    raise AssertionError(f"no sample of {annotation}")


def _choices(annotation: Any) -> list[Any]:
    return [choice for part in (annotation, *get_args(annotation)) for choice in get_args(part)]


def _is_object(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return True
    return any(_is_object(part) for part in get_args(annotation))
