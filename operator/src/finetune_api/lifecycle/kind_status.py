"""The status fields that every kind has, and how a stored status is read."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

from pydantic import Field, ValidationError

from finetune_api.base import ApiModel
from finetune_api.conditions import Condition
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle.remains import without_remains
from finetune_api.lifecycle.unreadable import UnreadableField, fields_of, named, way_out


class UnreadableStatusError(ValueError):
    """Another version wrote a status that this one can't interpret; the message names the fields.

    `way_out`: the changes of the stored status that would make it readable.
    """

    def __init__(self, message: str, way_out: str) -> None:
        super().__init__(message)
        self.way_out = way_out


class KindStatus(ApiModel):
    """The status fields that every kind has."""

    observed_generation: int | None = Field(None, description="The metadata.generation that this status describes.")
    conditions: list[Condition] = Field(
        default=[],
        json_schema_extra=keyed_by("type"),
        description="Current state of the object; docs/reference/conditions.md lists the types and reasons.",
    )

    @classmethod
    def from_another_version(cls, value: Any) -> Self:
        """As for every contract; a nested object without any field that this version knows is treated as absent."""
        return super().from_another_version(without_remains(cls, value))

    @classmethod
    def read(cls, value: Any) -> Self:
        """Parse a stored status, keeping the fields that another version added.

        Raises UnreadableStatusError when a field has the wrong type or the phase is unknown: it is unknown then what
        has already run.
        """
        stored = value or {}
        try:
            status = cls.from_another_version(stored)
        except ValidationError as error:
            raise cls._unreadable_error(stored) from error
        if cls.unknown_states(stored):
            raise cls._unreadable_error(stored)
        return status

    @classmethod
    def _unreadable_error(cls, stored: Any) -> UnreadableStatusError:
        fields = cls._unreadable(stored)
        return UnreadableStatusError(named(fields), way_out(fields, stored, cls._unreadable))

    @classmethod
    def unknown_states(cls, stored: dict[str, Any]) -> list[UnreadableField]:
        """States in it that leave unknown what runs."""
        phase = stored.get("phase")
        return [] if not isinstance(phase, str) or _is_phase(cls, phase) else [UnreadableField(("phase",), phase)]

    @classmethod
    def _unreadable(cls, stored: Any) -> list[UnreadableField]:
        """What can't be read of a stored status."""
        unknown = cls.unknown_states(stored) if isinstance(stored, dict) else []
        try:
            cls.from_another_version(stored)
        except ValidationError as error:
            places = {one.place for one in unknown}
            return [*unknown, *(one for one in fields_of(error) if one.place not in places)]
        return unknown


@cache
def _is_phase(status: type[KindStatus], phase: str) -> bool:
    """Whether this version knows the phase; each is checked once."""
    try:
        status.from_wire({"phase": phase})
    except ValidationError:
        return False
    return True
