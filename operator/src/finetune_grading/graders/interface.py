"""What a grader of any type provides: what its `compile_...` function makes of a grader of the spec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from finetune_api.graders import GraderErrorCode
from finetune_grading.concurrency import for_each
from finetune_grading.grade import Grade, RowError, Scored, unexpected
from finetune_grading.judge import StopGradingError
from finetune_grading.sample import Item, MissingVariableError, Row, Sample
from finetune_grading.templates import TemplateError, resolve, variables
from finetune_grading.time_limit import SlowOutputs

MOST_AT_ONCE = 256
"""Rows whose questions are made and answered at the same time: as many requests as a class may allow."""


class InvalidGraderError(ValueError):
    """The spec of a grader can't work. The message names the grader and the place, and says what to change."""

    def __init__(self, grader: str, message: str, code: GraderErrorCode | None = None) -> None:
        self.problem = f"{'' if code is None else f'{code}: '}{message}"
        """The message without the grader."""
        super().__init__(f"spec.graders: {grader!r}: {self.problem}")
        self.code = code
        self.grader = grader


@dataclass(frozen=True)
class CompiledGrader:
    """A grader whose spec has been checked."""

    name: str
    pass_threshold: float
    item_variables: tuple[str, ...]
    """The variables of an item that it reads, such as `item.reference`."""
    compares: bool = field(default=False, kw_only=True)
    """Whether it needs the baseline's output too, so that the baseline itself has no grade by it."""

    def missing_from(self, item: Item) -> list[str]:
        """The variables that this grader reads and the item lacks."""
        return [name for name in self.item_variables if not _has(item, name)]


def _ignore() -> None:
    """Where the number of grades is not reported."""


@dataclass(frozen=True)
class RowsGrader(CompiledGrader, ABC):
    """A grader that grades rows by themselves, whatever other graders say."""

    @abstractmethod
    async def grade(self, rows: Sequence[Row], on_row: Callable[[], None] = _ignore) -> list[Grade]:
        """A grade for each row, in their order. No row's fault raises; StopGradingError is none of a row's.

        `on_row` is called for each row that is graded.
        """


@dataclass(frozen=True)
class LocalGrader(RowsGrader):
    """It needs nothing but the row."""

    score: Callable[[Row], Scored]
    """Raises RowError."""

    async def grade(self, rows: Sequence[Row], on_row: Callable[[], None] = _ignore) -> list[Grade]:
        slow = SlowOutputs()  # of these rows, which are one model's: no other is given up for them
        grades: list[Grade] = []
        for row in rows:
            grades.append(self.grade_row(row, slow))
            on_row()
        return grades

    def grade_row(self, row: Row, slow: SlowOutputs | None = None) -> Grade:
        """The grade of one row. `slow` counts the rows of a model that take too long."""
        try:
            with (slow or SlowOutputs()).limited():
                scored = self.score(row)
            return Grade.of(scored, self.pass_threshold)
        except RowError as error:
            return Grade.errored(error.error)
        except Exception as error:
            return Grade.errored(unexpected(error))


@dataclass(frozen=True)
class AskingGrader(RowsGrader):
    """It asks another model about each row; how many requests are sent at once is that model's client's matter."""

    ask: Callable[[Row], Awaitable[Scored]]
    """Raises RowError, StopGradingError."""
    model: str
    best: str
    """The best result, in the words that the model replies with."""

    async def grade(self, rows: Sequence[Row], on_row: Callable[[], None] = _ignore) -> list[Grade]:
        grades: dict[int, Grade] = {}

        async def grade(at: int) -> None:
            grades[at] = await self._grade_row(rows[at])
            on_row()

        await for_each(range(len(rows)), grade, at_once=MOST_AT_ONCE)
        return [grades[at] for at in range(len(rows))]

    async def _grade_row(self, row: Row) -> Grade:
        try:
            return Grade.of(await self.ask(row), self.pass_threshold)
        except StopGradingError:
            raise
        except RowError as error:
            return Grade.errored(error.error)
        except Exception as error:
            return Grade.errored(unexpected(error))


def item_variables(grader: str, templates: dict[str, str]) -> tuple[str, ...]:
    """The variables of an item in templates, by the field that holds each. Raises InvalidGraderError."""
    found: list[str] = []
    for place, template in templates.items():
        try:
            found += [name for name in variables(template) if name.startswith("item.")]
        except TemplateError as error:
            raise InvalidGraderError(grader, f"{place}: {error}", GraderErrorCode.INVALID_VARIABLE_ERROR) from error
    return tuple(dict.fromkeys(found))


def _has(item: Item, name: str) -> bool:
    try:
        resolve(name, item, Sample(""))
    except MissingVariableError:
        return False
    return True
