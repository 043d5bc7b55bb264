"""What of a stored status (or spec) can't be read, and which change of it leads out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

FINAL_PHASES = ("Succeeded", "Failed", "Cancelled")
MOST_NAMED = 5
_FOREIGN = 100
"""Characters of a value that is shown."""


@dataclass(frozen=True)
class UnreadableField:
    """A field of the wrong type, a missing one, or a state that this version does not know.

    `values`: one of them has to be there, since without it what runs is unknown.
    """

    place: tuple[int | str, ...]
    value: Any = None
    is_missing: bool = False
    values: tuple[str, ...] = ()
    but: str = ""
    """What it contradicts."""

    def described(self, of: str) -> str:
        """`status.startTime is 'soon'`."""
        if self.is_missing:
            return f"{_path(of, self.place[:-1])} has no {self.place[-1]}{self.but}"
        return f"{_path(of, self.place)} is {_shown(self.value)}{self.but}"


Read = Callable[[Any], Sequence[UnreadableField]]
"""What can't be read of a value."""


def unknown_end(stored: dict[str, Any]) -> list[UnreadableField]:
    """The phase of a run that is over, if it is not a final one: it would go on, or start again."""
    phase = stored.get("phase")
    if stored.get("completionTime") is None or phase in FINAL_PHASES:
        return []
    return [UnreadableField(("phase",), phase, phase is None, FINAL_PHASES, ", though there is a completionTime")]


def fields_of(error: ValidationError) -> list[UnreadableField]:
    """Each field that could not be read, once."""
    found: dict[tuple[int | str, ...], UnreadableField] = {}
    for one in error.errors(include_url=False):
        found.setdefault(one["loc"], UnreadableField(one["loc"], one["input"], one["type"] == "missing"))
    return list(found.values())


def named(fields: Sequence[UnreadableField], of: str = "status") -> str:
    """The fields and their values, a few at most: `status.startTime is 'soon' and status.result has no uri`."""
    more = len(fields) - MOST_NAMED
    return _listed([*(one.described(of) for one in fields[:MOST_NAMED]), *([f"{more} more"] if more > 0 else [])])


def way_out(fields: Sequence[UnreadableField], stored: Any, read: Read) -> str:
    """Which changes make the status readable: removals were tried with `read`."""
    changes: list[str] = []
    for one in fields[:MOST_NAMED]:
        if one.values:
            changes.append(
                f"set {_path('status', one.place)} to {_listed([*one.values], word='or')}, whichever it was,"
            )
        else:
            changes.append(f"remove {_path('status', _removable(one, stored, read, len(fields)))}")
    return _listed(list(dict.fromkeys(changes))).removesuffix(",")


def _removable(field: UnreadableField, stored: Any, read: Read, before: int) -> tuple[int | str, ...]:
    """The field, or what holds it where it can't be absent."""
    longest = len(field.place) - field.is_missing
    for length in range(longest, 0, -1):
        place = field.place[:length]
        shorter, is_there = _without(stored, place)
        if is_there and len(read(shorter)) < before:
            return place
    return field.place[:1]


def _without(value: Any, place: tuple[int | str, ...]) -> tuple[Any, bool]:
    """The value without what is at this place, and whether anything was."""
    first, rest = place[0], place[1:]
    if isinstance(value, dict) and first in value:
        inner, is_there = _without(value[first], rest) if rest else (None, True)
        kept = {name: one for name, one in value.items() if name != first}
        return (kept | {first: inner} if rest else kept), is_there
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        inner, is_there = _without(value[first], rest) if rest else (None, True)
        return [*value[:first], *([inner] if rest else []), *value[first + 1 :]], is_there
    return value, False


def _path(of: str, place: Iterable[int | str]) -> str:
    return ".".join([of, *map(str, place)])


def _shown(value: Any) -> str:
    """As JSON has it, not Python."""
    if value is None or isinstance(value, bool | dict | list):
        return json.dumps(value, default=str)[:_FOREIGN]
    return repr(str(value)[:_FOREIGN])


def _listed(texts: list[str], word: str = "and") -> str:
    *first, last = texts
    return f"{', '.join(first)} {word} {last}" if first else last
