"""What of an eval can't be translated: refused, or noted where the rest has its meaning without it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


class ImportRefusedError(Exception):
    """Nothing is written. `problems`: all that were found, each with its place and what to change."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass
class Findings:
    """Collected on the way, so that a person hears of everything at once."""

    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strict: bool = False
    """Whether unknown fields are refused rather than noted."""

    def refuse(self, place: str, why: str) -> None:
        self.refused.append(f"{place}: {why}")

    def note(self, place: str, what: str) -> None:
        self.notes.append(f"{place}: {what}")

    def leave_out(self, place: str, fields: Iterable[str]) -> None:
        """Fields that have no equivalent."""
        for name in fields:
            if self.strict:
                self.refuse(f"{place}.{name}", "unknown field.")
            else:
                self.note(f"{place}.{name}", "not translated: an Evaluation has no such setting.")

    def raise_if_refused(self) -> None:
        """Raises ImportRefusedError."""
        if self.refused:
            raise ImportRefusedError(self.refused)
