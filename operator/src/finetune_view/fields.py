"""Reads objects of the cluster leniently: any field may be absent, of another type, or hostile to a terminal.

The plugin may be older or newer than the operator, so a field that can't be read counts as absent.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

_REPLACED = "\ufffd"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters, halves of surrogate pairs, and separators that some terminals take for a new line."""
_JOINERS = "\u200c\u200d"
"""Format characters that words of Persian and Hindi, and emoji, consist of."""


def clean(text: str, *, lines: bool = False) -> str:
    """The text without what a terminal would interpret: escape sequences, control and bidirectional characters.

    `lines` keeps line breaks; otherwise the text becomes one line. An escape character is shown as kubectl shows it.
    """
    if not lines:
        text = " ".join(text.split()) if any(space in text for space in "\n\r\t\v\f") else text
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(one, lines) for one in text)


def _shown(one: str, lines: bool) -> str:
    if one.isprintable() or one in _JOINERS or (lines and one == "\n"):
        return one
    if one < " ":
        return f"^{chr(ord(one) + 64)}"
    return _REPLACED if unicodedata.category(one) in _INVISIBLE else one


class Fields:
    """A JSON value that may be anything; its readers return an empty value instead of failing."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return bool(self.value)

    def at(self, *path: str) -> Fields:
        """The value at a path; an empty one where there is none."""
        found = self.value
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return Fields(found)

    def __iter__(self) -> Iterator[Fields]:
        return iter([Fields(item) for item in self.value] if isinstance(self.value, list) else [])

    def items(self) -> Iterator[tuple[str, Fields]]:
        """The members of an object."""
        members = self.value if isinstance(self.value, dict) else {}
        return iter([(clean(str(name)), Fields(value)) for name, value in members.items()])

    def text(self, *path: str) -> str:
        """One line; "" if there is none. Numbers and truth values are written as in YAML."""
        found = self.at(*path).value
        if isinstance(found, bool):
            return "true" if found else "false"
        return clean(str(found)) if isinstance(found, str | int | float) else ""

    def block(self, *path: str) -> str:
        """Text with line breaks."""
        found = self.at(*path).value
        return clean(found, lines=True) if isinstance(found, str) else ""

    def number(self, *path: str) -> float | None:
        """A finite number."""
        found = self.at(*path).value
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        try:
            number = float(found)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def whole(self, *path: str) -> int | None:
        """A whole number."""
        found = self.number(*path)
        return None if found is None else int(found)

    def time(self, *path: str) -> datetime | None:
        """An RFC 3339 time."""
        found = self.at(*path).value
        if not isinstance(found, str):
            return None
        try:
            moment = datetime.fromisoformat(found)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
