"""What every contract has in common: camelCase on the wire, unknown fields refused, values never changed."""

from __future__ import annotations

import math
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
)
from pydantic.alias_generators import to_camel

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


def _encodable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


_Encodable = BeforeValidator(_encodable)
"""JSON of a dataset may hold half a surrogate pair, which no JSON that is sent may."""
LINE_LENGTH = 1024
Line = Annotated[str, _Encodable, StringConstraints(max_length=LINE_LENGTH)]
Text = Annotated[str, _Encodable, StringConstraints(max_length=4096)]
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def sane_time(moment: datetime) -> datetime:
    """The moment in UTC, from 1970 to 2200: beyond, sums with it may fail."""
    if moment.year <= EARLIEST.year:
        return EARLIEST
    if moment.year >= LATEST.year:
        return LATEST
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)


Timestamp = Annotated[datetime, AfterValidator(sane_time), Field(description="RFC 3339, UTC, whole seconds.")]


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


FiniteNumber = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""Python writes NaN and Infinity into JSON; the API server takes neither."""
MOST_STEPS = MOST_EXAMPLES = 2**31 - 1
"""The most that an int32 holds."""
LONGEST_SECONDS = 10 * 366 * 24 * 3600
"""Ten years: a moment so much later than any other is still one."""


_STORABLE = range(-(2**63), 2**63)
"""The whole numbers that the API server stores: a status with another one could not be written."""

ANOTHER_VERSION = {"from": "another version"}
"""The validation context of what an older or newer operator may have written."""
_UNKNOWN_VALUE = frozenset({"literal_error", "enum", "string_pattern_mismatch", "string_too_long"})


class ApiModel(BaseModel):
    """Base of every model that crosses an edge (the API server, a ConfigMap, a termination message, S3)."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready dict in wire names; absent (None) fields are left out."""
        # An unknown value of an enum, which another version wrote, is no reason for a warning.
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """Parse wire data. Raises pydantic.ValidationError naming each wrong field."""
        return cls.model_validate(value)

    @classmethod
    def from_another_version(cls, value: Any) -> Self:
        """Parse what another version may have written: unknown fields and values of enums are kept as they are.

        Raises pydantic.ValidationError for what can't be read even so.
        """
        return cls.model_validate(value, extra="allow", context=ANOTHER_VERSION)

    def over(self, before: Self | None) -> Self:
        """This one, with what another version wrote into the one that it follows."""
        if before is None or not before.__pydantic_extra__:
            return self
        copy = self.model_copy()
        object.__setattr__(copy, "__pydantic_extra__", {**before.__pydantic_extra__, **(self.__pydantic_extra__ or {})})
        return copy

    @model_serializer(mode="wrap")
    def _write_unknown_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What another version wrote goes out as it came."""
        written: dict[str, Any] = write(self)
        return {**written, **self.__pydantic_extra__} if self.__pydantic_extra__ else written

    @field_validator("*", mode="wrap")
    @classmethod
    def _read_value(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Let an enum's value pass that this version does not know, where another version may have written it.

        Whole numbers must be what the API server can store: whoever may write a report may write any.
        """
        try:
            found = read(value)
        except ValidationError as error:
            kinds = {one["type"] for one in error.errors(include_url=False) if not one["loc"]}
            if info.context is ANOTHER_VERSION and isinstance(value, str) and kinds <= _UNKNOWN_VALUE:
                return value
            raise
        if isinstance(found, int) and found not in _STORABLE:
            raise ValueError("a whole number of 64 bits is expected")
        return found


def cel(*rules: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    """`json_schema_extra` with CEL rules that the API server enforces: rule, message, and the field at fault."""
    return {
        "x-kubernetes-validations": [
            {"rule": rule, "message": message} | ({"fieldPath": f".{field[0]}"} if field else {})
            for rule, message, *field in rules
        ]
    }


def problems(error: ValidationError) -> str:
    """Which fields are wrong, and how: five at most, on one line."""
    found = error.errors(include_url=False)[:5]
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in found)


class LocalObjectReference(ApiModel):
    """An object in the same namespace."""

    name: Name = Field(description="Name of an object in the same namespace.")


def whole_seconds(moment: datetime) -> datetime:
    """The moment in UTC, cut to whole seconds, as Kubernetes writes times."""
    return sane_time(moment).replace(microsecond=0)
