"""What every type of grader compiles to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_grading.sample import MissingVariableError, Sample
from finetune_grading.templates import resolve

Item = Mapping[str, Any]
"""The fields of one example, as `{{item.<field>}}` names them."""
REFERENCE_TOOLS = "reference_tools"
"""The item's field with the reference's tool calls, in OpenAI's form; every chat example has it."""


class InvalidGraderError(ValueError):
    """The spec of a grader can't work. The message names the grader and says what to change."""

    def __init__(self, grader: str, message: str) -> None:
        super().__init__(f"spec.graders: {grader!r}: {message}")


@dataclass(frozen=True)
class CompiledGrader:
    """A grader whose spec has been checked."""

    name: str
    item_variables: tuple[str, ...]
    """The variables of an item that it reads, such as `item.reference`."""
    score: Callable[[Item, Sample], float]

    def grade(self, item: Item, sample: Sample) -> float:
        """The score of an output, from 0 to 1; 0 where it lacks a variable (it is not JSON, or has no such member).

        Raises InvalidGraderError for a schema that refers to something outside of it, which only an output can show.
        """
        try:
            return self.score(item, sample)
        except MissingVariableError:
            return 0.0

    def missing_from(self, item: Item) -> list[str]:
        """The variables that this grader reads and the item lacks."""
        return [name for name in self.item_variables if not _has(item, name)]


def _has(item: Item, name: str) -> bool:
    try:
        resolve(name, item, Sample(""))
    except MissingVariableError:
        return False
    return True
