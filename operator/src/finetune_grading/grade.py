"""What a grader says of one row: a score and a verdict, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from finetune_api.graders import GraderErrorCode

Verdict = Literal["Passed", "Failed", "Errored"]
ROUNDING = 1e-12
"""0.1 + 0.7 is 0.7999999999999999 to a computer, and reaches a threshold of 0.8."""


def reaches(number: float, threshold: float, *, least: float = 0.0) -> bool:
    """Whether a number reaches a threshold, but for rounding.

    `least`: the lower end of the scale, which is not rounded: it reaches no threshold above it, however small.
    """
    return number >= threshold or (number > least and number >= threshold - ROUNDING)


@dataclass(frozen=True)
class GradeError:
    """Why a row could not be graded: a code of OpenAI's, and what happened."""

    code: GraderErrorCode
    details: str
    passing: bool = False
    """Whether another try may have a grade: an API did not answer. What it has answered it would answer again."""


class RowError(Exception):
    """One row can't be graded. The message says why."""

    def __init__(self, code: GraderErrorCode, details: str, *, passing: bool = False) -> None:
        super().__init__(details)
        self.error = GradeError(code, details, passing)


class Scored(NamedTuple):
    """What a grader found: a score from 0 to 1, and what else there is to say of it."""

    score: float
    details: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Grade:
    """The grade of one row."""

    score: float | None
    """From 0 to 1; None where the row is Errored."""
    verdict: Verdict
    error: GradeError | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the type of grader adds: the member that a schema refuses, a judge's steps."""

    @classmethod
    def of(cls, scored: Scored, pass_threshold: float) -> Grade:
        """The grade of a score: it passes from the threshold on."""
        score = scored.score
        if not math.isfinite(score):
            return cls.errored(GradeError(GraderErrorCode.OTHER_ERROR, f"The score is {score}."))
        verdict: Verdict = "Passed" if reaches(score, pass_threshold) else "Failed"
        return cls(min(1.0, max(0.0, score)), verdict, None, scored.details)

    @classmethod
    def errored(cls, error: GradeError) -> Grade:
        """The grade of a row that can't be graded."""
        return cls(None, "Errored", error)


def unexpected(error: Exception) -> GradeError:
    """What a library raised on an output that it was not made for: that row's error, not the run's."""
    return GradeError(GraderErrorCode.OTHER_ERROR, f"{type(error).__name__}: {error}"[:500])
