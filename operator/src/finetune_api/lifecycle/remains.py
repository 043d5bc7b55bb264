"""What is left of a nested object of a status after its fields were removed."""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from finetune_api.base import ApiModel


def without_remains(model: type[ApiModel], value: Any) -> Any:
    """The stored value without the nested objects that have no field this version knows.

    Server-side apply leaves such an object behind when a writer removes only the fields that it owns.
    It leaves none in a list, which is atomic or whose items have their key: such an item is a newer version's record,
    and an empty one is nothing.
    """
    if not isinstance(value, dict):
        return value
    kept = dict(value)
    for wire, inner in _objects_in(model):
        if wire not in kept:
            continue
        found = kept[wire]
        if isinstance(found, list):
            kept[wire] = [without_remains(inner, item) for item in found if item != {}]
        elif _is_remains(inner, found := without_remains(inner, found)):
            del kept[wire]
        else:
            kept[wire] = found
    return kept


def _is_remains(model: type[ApiModel], value: Any) -> bool:
    return isinstance(value, dict) and _known_fields(model).isdisjoint(value)


@cache
def _known_fields(model: type[ApiModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


@cache
def _objects_in(model: type[ApiModel]) -> tuple[tuple[str, type[ApiModel]], ...]:
    """The fields of a model that hold objects, one or a list, and what these are."""
    types = [(field.alias or name, _object_type(field.annotation)) for name, field in model.model_fields.items()]
    return tuple((wire, inner) for wire, inner in types if inner is not None)


def _object_type(annotation: Any) -> type[ApiModel] | None:
    """The model in `Model`, `Model | None` and `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    if get_origin(annotation) not in (list, Union, UnionType):
        return None
    return next((found for part in get_args(annotation) if (found := _object_type(part)) is not None), None)
