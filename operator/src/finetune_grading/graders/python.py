"""The grader Python: OpenAI's python grader, whose code runs in a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune_api.graders import MOST_SOURCE_BYTES, Grader, GraderErrorCode
from finetune_grading.grade import Grade, RowError, Scored, unexpected
from finetune_grading.graders.interface import InvalidGraderError, RowsGrader
from finetune_grading.judge import StopGradingError
from finetune_grading.python_code import (
    MOST_CHECKED_BYTES,
    NeverRun,
    PythonRunner,
    RunningCode,
    code_problem,
    sample_of,
)
from finetune_grading.sample import Row

MOST_TIMEOUTS = 10
"""Outputs of one model that may exceed timeoutSeconds: those after them are given up at once."""


class CodeTimeoutError(RowError):
    """The code took longer than timeoutSeconds for a row."""

    def __init__(self, timeout_seconds: int) -> None:
        details = f"It took more than {timeout_seconds} s (timeoutSeconds) for this output, and was killed."
        super().__init__(GraderErrorCode.PYTHON_GRADER_RUNTIME_ERROR, details)


@dataclass(frozen=True)
class PythonGrader(RowsGrader):
    """It has its code run on each row, one after another, in a process of these rows alone."""

    source: str
    timeout_seconds: int
    runner: PythonRunner

    async def grade(self, rows: Sequence[Row], on_row: Callable[[], None] = lambda: None) -> list[Grade]:
        grades: list[Grade] = []
        timeouts = 0
        async with self.runner.run(self.source, self.timeout_seconds) as code:
            for row in rows:
                try:
                    grades.append(await self._grade_row(code, row, timeouts))
                except CodeTimeoutError as late:
                    timeouts += 1
                    grades.append(Grade.errored(late.error))
                on_row()
        return grades

    async def _grade_row(self, code: RunningCode, row: Row, timeouts: int) -> Grade:
        if timeouts >= MOST_TIMEOUTS:
            details = f"{MOST_TIMEOUTS} outputs before this one took more than {self.timeout_seconds} s; not tried."
            return Grade.errored(RowError(GraderErrorCode.PYTHON_GRADER_RUNTIME_ERROR, details).error)
        try:
            score = await code.grade(sample_of(row.sample), row.item)
            return Grade.of(Scored(score), self.pass_threshold)
        except (StopGradingError, CodeTimeoutError):
            raise
        except RowError as error:
            return Grade.errored(error.error)
        except Exception as error:
            return Grade.errored(unexpected(error))


def compile_python(grader: Grader, pass_threshold: float, runner: PythonRunner | None) -> PythonGrader:
    """Raises InvalidGraderError for a source that can't be a grader's, or where nothing may run it."""
    assert grader.python is not None, "a union's required member"
    # The Pod that runs it parses it whole, before any model is loaded.
    most_parsed = MOST_CHECKED_BYTES if isinstance(runner, NeverRun) else MOST_SOURCE_BYTES
    if (problem := code_problem(grader.python.source, most_parsed)) is not None:
        raise InvalidGraderError(grader.name, f"python.source: {problem}")
    if runner is None:
        raise InvalidGraderError(
            grader.name, "its code is run in the sandbox of an Evaluation only; use the grader in an Evaluation."
        )
    return PythonGrader(grader.name, pass_threshold, (), grader.python.source, grader.python.timeout_seconds, runner)
