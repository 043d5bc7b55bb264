"""What all contracts have in common: camelCase on the wire, unknown fields rejected, immutable values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


def _encodable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


_Encodable = BeforeValidator(_encodable)
"""JSON in a dataset may contain half a surrogate pair, which must not be sent in JSON."""
LINE_LENGTH = 1024
Line = Annotated[str, _Encodable, StringConstraints(max_length=LINE_LENGTH)]
Text = Annotated[str, _Encodable, StringConstraints(max_length=4096)]
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def sane_time(moment: datetime) -> datetime:
    """The time in UTC, clamped to 1970 to 2200, so that arithmetic with it can't overflow."""
    if moment.year < EARLIEST.year:
        return EARLIEST
    if moment.year >= LATEST.year:
        return LATEST
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(EARLIEST, aware.astimezone(UTC))


Timestamp = Annotated[datetime, AfterValidator(sane_time), Field(description="RFC 3339, UTC, whole seconds.")]


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


FiniteNumber = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""Python writes NaN and Infinity into JSON; the API server accepts neither."""
MOST_STEPS = MOST_EXAMPLES = 2**31 - 1
"""The largest int32."""
LARGEST_SEED = 2**32 - 1
"""The largest uint32, which NumPy takes as a seed."""
LONGEST_SECONDS = 10 * 366 * 24 * 3600
"""Ten years: added to any valid time, the result is still a valid time."""


_STORABLE = range(-(2**63), 2**63)
"""The integers that the API server can store: a status with any other could not be written."""

ANOTHER_VERSION = {"from": "another version"}
"""The validation context for values that an older or newer operator may have written."""
REPORT = {"from": "a Pod, whose image may be of another version"}
"""The validation context for what a Pod reports, which somebody may have forged: names may be new, no text too long."""
STORED = {"from": "the API server"}
"""The validation context for specs at rest: what an older version admitted goes on, whatever is admitted now."""
_NEW_NAME = frozenset({"literal_error", "enum"})
_UNKNOWN_VALUE = _NEW_NAME | {"string_pattern_mismatch", "string_too_long"}
_OUT_OF_BOUNDS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})


class ApiModel(BaseModel):
    """Base of every model that crosses a boundary (the API server, a ConfigMap, a termination message, S3)."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself, since it is never modified: pydantic would copy each default value, in Python, at each use."""
        return self

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready dict with wire names; absent (None) fields are omitted."""
        # An unknown value of an enum, which another version wrote, is no reason for a warning.
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """Parse wire data. Raises pydantic.ValidationError naming each wrong field."""
        return cls.model_validate(value)

    @classmethod
    def from_another_version(cls, value: Any) -> Self:
        """Parse data that another version may have written, keeping unknown fields and enum values.

        Raises pydantic.ValidationError for data that still can't be read.
        """
        return cls.model_validate(value, extra="allow", context=ANOTHER_VERSION)

    @classmethod
    def from_storage(cls, value: Any) -> Self:
        """Parse a spec that the API server has stored: its numbers may be outside the bounds of now.

        Raises pydantic.ValidationError naming each wrong field.
        """
        return cls.model_validate(value, context=STORED)

    def over(self, before: Self | None) -> Self:
        """This one, with the unknown fields of the one that it replaces."""
        if before is None or not before.__pydantic_extra__:
            return self
        copy = self.model_copy()
        object.__setattr__(copy, "__pydantic_extra__", {**before.__pydantic_extra__, **(self.__pydantic_extra__ or {})})
        return copy

    @model_serializer(mode="wrap")
    def _write_unknown_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write unknown fields of another version unchanged."""
        written: dict[str, Any] = write(self)
        return {**written, **self.__pydantic_extra__} if self.__pydantic_extra__ else written

    @field_validator("*", mode="wrap")
    @classmethod
    def _read_value(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Accept unknown enum values, and numbers outside the bounds of now, if another version may have written them.

        Integers must be storable by the API server, because a forged report may contain any.
        """
        try:
            found = read(value)
        except ValidationError as error:
            kinds = {one["type"] for one in error.errors(include_url=False) if not one["loc"]}
            accepted = _NEW_NAME if info.context is REPORT else _UNKNOWN_VALUE
            if info.context in (ANOTHER_VERSION, REPORT) and isinstance(value, str) and kinds <= accepted:
                return value
            if info.context not in (ANOTHER_VERSION, STORED) or not _is_number(value) or not kinds <= _OUT_OF_BOUNDS:
                raise
            found = value
        if isinstance(found, int) and found not in _STORABLE:
            raise ValueError("a whole number of 64 bits is expected")
        return found


FILE_FORMAT = 1
"""Of the files in a run's folder. It is raised where a reader of this version would misunderstand the file."""
NEWER_FORMAT = "newer_format"
"""The type of pydantic's error for a file of a later format."""


class RunFile(ApiModel):
    """A file in a run's folder, which the trainer of another version may read after an upgrade or a rollback.

    Unknown fields are ignored, and what is None is not written: trainers before `format` refuse unknown fields.
    """

    format: int | None = Field(None, description="None: 1.")

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse a file. Raises pydantic.ValidationError, of the type NEWER_FORMAT for a later format."""
        return cls.model_validate_json(content, extra="ignore")

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (self.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n").encode()

    @model_validator(mode="before")
    @classmethod
    def _refuse_newer(cls, value: Any) -> Any:
        """Before the fields are read, whose meaning is unknown then."""
        found = value.get("format") if isinstance(value, dict) else None
        if isinstance(found, int) and found > FILE_FORMAT:
            raise PydanticCustomError(
                NEWER_FORMAT,
                "it has format {found}, and this version reads up to {known}",
                {"found": found, "known": FILE_FORMAT},
            )
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cel(*rules: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    """`json_schema_extra` with CEL rules that the API server enforces: rule, message, and the field at fault."""
    return {
        "x-kubernetes-validations": [
            {"rule": rule, "message": message} | ({"fieldPath": f".{field[0]}"} if field else {})
            for rule, message, *field in rules
        ]
    }


def problems(error: ValidationError) -> str:
    """The invalid fields and their errors, at most five, on one line."""
    return "; ".join(f"{path or 'the whole'}: {fault}" for path, fault in list(faults(error).items())[:5])


_UNION_TAG = re.compile(r"constrained-\w+|[\w-]+\[.*\]")
"""Pydantic adds the alternatives of a union to the path (`literal['Best','Last']`, `constrained-int`)."""


def path_of(place: Iterable[int | str]) -> str:
    """The path of a field, from what pydantic says of an error's place."""
    return ".".join(str(part) for part in place if not _UNION_TAG.fullmatch(str(part)))


def faults(error: ValidationError) -> dict[str, str]:
    """What is wrong, by the path of the field. A value that is none of several alternatives is one fault."""
    found: dict[str, list[str]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(path_of(one["loc"]), []).append(one["msg"])
    return {path: " or ".join(dict.fromkeys(said)) for path, said in found.items()}


class LocalObjectReference(ApiModel):
    """An object in the same namespace."""

    name: Name = Field(description="Name, in the same namespace.")


def whole_seconds(moment: datetime) -> datetime:
    """The time in UTC, truncated to whole seconds, as Kubernetes writes times."""
    return sane_time(moment).replace(microsecond=0)
