"""Names of OpenAI's, which are any text, as names of ours."""

from __future__ import annotations

import re

LONGEST = 32
"""Of graders and of a class's models."""


def slug(name: str, longest: int = LONGEST) -> str:
    """Lower-case letters, digits and hyphens; empty where there is none in the name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:longest].strip("-")


class UniqueNames:
    """Gives names, each once."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def new(self, name: str) -> str:
        """A name of its own, even where the same name was given before."""
        base, number = slug(name) or "unnamed", 1
        found = base
        while found in self._taken:
            number += 1
            suffix = f"-{number}"
            found = f"{base[: LONGEST - len(suffix)].rstrip('-')}{suffix}"
        self._taken.add(found)
        return found

    def of(self, name: str) -> str:
        """The name that stands for this one, always the same."""
        if name not in self._given:
            self._given[name] = self.new(name)
        return self._given[name]

    @property
    def given(self) -> dict[str, str]:
        """Ours, by theirs."""
        return dict(self._given)
