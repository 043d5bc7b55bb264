"""What a sweep may vary: fields of the template, by their paths, and the values to try."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic.fields import FieldInfo

from finetune_api.base import ApiModel, Line, cel
from finetune_api.finetunejob import SETTINGS, Method, TrainingSpec
from finetune_api.kubernetes_types import SET
from finetune_api.unions import OneOf

Value = StrictInt | StrictFloat | StrictStr
"""A value of a field."""
LARGEST = 2**32
_SEARCHED = ("method.", "adapter.", "hyperparameters.")
"""What makes another model of the same model and data; all else decides where and how long it trains."""
_DECIDING = (".type", ".inherited")
"""Fields that decide which others there may be."""
_OF_THE_MEASURE = frozenset(
    {
        "method.dpo.beta",
        "method.dpo.lossType",
        "method.distillation.divergence",
        "method.distillation.maxCompletionTokens",
        "method.distillation.teacher.fineTuneJobRef.name",
        "method.distillation.teacher.uri",
        "method.distillation.temperature",
        "hyperparameters.maxLength",
    }
)
"""Fields that change what the validation loss is, so that losses of different values can't be compared."""
_WITHOUT_MEASURE = tuple(
    f"method.{Method.members()[kind]}." for kind, settings in SETTINGS.items() if not settings.rules.has_validation_loss
)
"""Settings of methods without one, whose trials can't be compared at all."""


def _object(annotation: Any) -> type[ApiModel] | None:
    """The model in `Model` and `Model | None`."""
    found = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type)]
    return next((part for part in found if issubclass(part, ApiModel)), None)


def _scalars(annotation: Any) -> frozenset[type]:
    """The types of the values that a field may have; none for a list or an object."""
    if get_origin(annotation) is Literal:
        return frozenset(type(value) for value in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _scalars(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return frozenset(found for part in get_args(annotation) for found in _scalars(part))
    return frozenset({annotation} if annotation in (int, float, str) else ())


def _fields(model: type[ApiModel], prefix: str = "") -> Iterator[tuple[str, frozenset[type]]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = _object(field.annotation)
        if inner is not None:
            yield from _fields(inner, f"{path}.")
        elif scalars := _scalars(field.annotation) - {NoneType}:
            yield path, scalars


def _default(path: str) -> Any:
    """The default of a field, which the API server fills in."""
    model: type[ApiModel] = TrainingSpec
    *parents, last = path.split(".")
    for name in parents:
        model = _object(_field(model, name).annotation) or model
    return _field(model, last).default


def _field(model: type[ApiModel], name: str) -> FieldInfo:
    return next(field for own, field in model.model_fields.items() if name in (own, field.alias))


_TYPES: Mapping[str, frozenset[type]] = {
    path: types
    for path, types in _fields(TrainingSpec)
    if path.startswith(_SEARCHED) and not path.startswith(_WITHOUT_MEASURE)
    if not path.endswith(_DECIDING) and path not in _OF_THE_MEASURE
}
_DEFAULTS: Mapping[str, Any] = {path: _default(path) for path in _TYPES}
PATHS = tuple(_TYPES)
"""The fields of a template that may be searched."""


class Range(ApiModel):
    """Numbers from minimum to maximum, both included; whole ones where the field takes only those."""

    model_config = ConfigDict(
        json_schema_extra=cel(("self.minimum < self.maximum", "minimum must be less than maximum", "minimum"))
    )

    minimum: float = Field(ge=0, le=LARGEST, description="Smallest value to try.")
    maximum: float = Field(ge=0, le=LARGEST, description="Largest value to try.")


class LogRange(Range):
    """A range whose logarithm is searched."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.minimum < self.maximum", "minimum must be less than maximum", "minimum"),
            ("self.minimum > 0.0", "minimum must be greater than 0: there is no logarithm of 0", "minimum"),
        )
    )


_WHOLE = [path for path, types in _TYPES.items() if int in types and float not in types]
"""The fields that take whole numbers only."""


class Parameter(OneOf):
    """A field to vary, and the values to try."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                f"!has(self.numbers) || !(self.path in {_WHOLE}) || "
                "self.numbers.all(number, number == double(int(number)))",
                "the field takes whole numbers only",
                "numbers",
            ),
            (
                "!has(self.numbers) || "
                "self.numbers.all(one, self.numbers.exists_one(same, double(same) == double(one)))",
                "numbers name each value once",
                "numbers",
            ),
        )
    )

    choices = ("uniform", "log_uniform", "numbers", "texts")

    path: Annotated[str, Field(json_schema_extra={"enum": list(PATHS)})] = Field(
        description="Field of template.spec, which must not set it itself."
    )
    uniform: Range | None = Field(None, description="Any number of a range, each as likely.")
    log_uniform: LogRange | None = Field(
        None, description="Any number of a range, each order of magnitude as likely: for learning rates."
    )
    # No set: the API server takes 8 and 8.0, as it stores them and as it applies them, for different items of one.
    numbers: list[Annotated[float, Field(ge=0, le=LARGEST)]] | None = Field(
        None, min_length=1, max_length=50, description="One of these numbers."
    )
    texts: list[Line] | None = Field(
        None, min_length=1, max_length=50, json_schema_extra=SET, description="One of these values of an enum."
    )

    @property
    def bounds(self) -> Range | None:
        """The range, if it is one."""
        return self.uniform or self.log_uniform

    @property
    def values(self) -> list[Value]:
        """The values to try; none if it is a range."""
        return [*(self._number(number) for number in self.numbers or []), *(self.texts or [])]

    def extremes(self) -> list[Value]:
        """The bounds of the range, or every value."""
        if self.bounds is None:
            return self.values
        return [self._number(self.bounds.minimum), self._number(self.bounds.maximum)]

    def _number(self, number: float) -> int | float:
        """As an int if the field requires one."""
        return int(number) if is_whole(self.path) and number.is_integer() else number


def is_whole(path: str) -> bool:
    """Whether the field takes whole numbers only."""
    return path in _WHOLE


def is_number(path: str) -> bool:
    """Whether the field takes numbers."""
    return bool(_TYPES[path] & {int, float})


def set_value(template: Mapping[str, Any], path: str) -> Value | None:
    """The template's own value for a field; None if it has none, or the default."""
    value: Value | None = _value_at(template, path)
    return None if value == _DEFAULTS[path] else value


def with_values(template: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """The template with these values, by path."""
    result: dict[str, Any] = copy.deepcopy(dict(template))
    for path, value in values.items():
        *parents, last = path.split(".")
        node = result
        for name in parents:
            inner = node.get(name)
            if not isinstance(inner, dict):  # a path of another version may go through what is a value here
                inner = node[name] = {}
            node = inner
        node[last] = value
    return result


def has_values(spec: Mapping[str, Any], values: Mapping[str, Value]) -> bool:
    """Whether a spec has these values, by path. A path that only another version searches can't be compared."""
    return all(_value_at(spec, path) == value for path, value in values.items() if path in _TYPES)


def _value_at(spec: Mapping[str, Any], path: str) -> Any:
    found: Any = spec
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def accepts(template: Mapping[str, Any], path: str, value: Value) -> str | None:
    """Why the template can't have this value; None if it can."""
    try:
        TrainingSpec.from_wire(with_values(template, {path: value}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
