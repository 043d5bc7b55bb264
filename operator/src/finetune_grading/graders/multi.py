"""The grader Multi: a formula over the scores of other graders of the list."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.formula import Formula, FormulaError, parse_formula
from finetune_grading.grade import ROUNDING, Grade, GradeError, Scored, reaches
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError

TRIED = 256


@dataclass(frozen=True)
class MultiGrader(CompiledGrader):
    """It grades what others have graded: nothing is graded, or paid for, twice."""

    formula: Formula
    reads: Mapping[str, str]
    """The graders that it reads, by their names in the formula."""

    def combine(self, grades: Mapping[str, Grade]) -> Grade:
        """The grade of a row from its other grades. An Errored one that it reads makes it Errored too."""
        scores: dict[str, float] = {}
        for name, grader in self.reads.items():
            grade = grades[grader]
            if grade.score is None:
                assert grade.error is not None
                return Grade.errored(replace(grade.error, details=f"{grader}: {grade.error.details}"))
            scores[name] = grade.score
        try:
            value = self.formula(scores)
        except (ArithmeticError, ValueError) as error:
            of = ", ".join(f"{name}={score:g}" for name, score in scores.items())
            return Grade.errored(GradeError(GraderErrorCode.OTHER_ERROR, f"calculateOutput with {of}: {error}"))
        details = {} if 0 <= value <= 1 else {"value": value}
        return Grade.of(Scored(min(1.0, max(0.0, value)), details), self.pass_threshold)


def compile_multi(
    grader: Grader,
    pass_threshold: float,
    others: Collection[str],
    comparing: Collection[str] = (),
    binary: Collection[str] = (),
    *,
    as_reward: bool = False,
) -> MultiGrader:
    """`others`: the names of the graders that it may read; `comparing`: those of them that compare with the baseline;
    `binary`: those whose score is 0 or 1.

    `as_reward`: only the score counts, whatever the threshold makes of it. Raises InvalidGraderError.
    """
    assert grader.multi is not None, "a union's required member"
    names = {name.replace("-", "_"): name for name in others}
    try:
        formula = parse_formula(grader.multi.calculate_output, names)
    except FormulaError as error:
        raise InvalidGraderError(grader.name, f"multi.calculateOutput: {error}", error.code) from error
    binary = {name.replace("-", "_") for name in binary}
    if useless := (
        _why_no_value(formula, binary)
        or _why_constant(formula)
        or (None if as_reward else _why_decided(formula, pass_threshold))
    ):
        message = f"multi.calculateOutput: {useless} The formula is {grader.multi.calculate_output!r}."
        raise InvalidGraderError(grader.name, message, GraderErrorCode.INVALID_VARIABLE_ERROR)
    reads = {name: names[name] for name in formula.names}
    compares = any(name in comparing for name in reads.values())
    return MultiGrader(grader.name, pass_threshold, (), formula, reads, compares=compares)


def _why_no_value(formula: Formula, binary: Collection[str]) -> str | None:
    """Why it has no value for any scores; None where it has one, or may have."""
    if not formula.names:
        return None
    try:
        formula.bounds(0.0, 1.0)
    except (ArithmeticError, ValueError) as error:
        return f"it has no value, whatever the graders that it reads say: {error}."
    shown = ""
    for scores in _tried(formula.names, binary):
        try:
            formula(scores)
        except (ArithmeticError, ValueError) as error:
            shown = shown or f"with {', '.join(f'{name}={score:g}' for name, score in scores.items())}: {error}"
        else:
            return None
    return f"it has no value with any of the scores that were tried, such as {shown}."


def _tried(names: Sequence[str], binary: Collection[str]) -> Iterator[dict[str, float]]:
    """Scores: all of 0 and 1, up to TRIED of them, and then TRIED others, which are the same each time."""
    for scores in islice(product((0.0, 1.0), repeat=len(names)), TRIED):
        yield dict(zip(names, scores, strict=True))
    if set(names) <= set(binary):
        return
    chance = random.Random(0)
    for _ in range(TRIED):
        yield {name: float(chance.random() < 0.5) if name in binary else chance.random() for name in names}


def _why_constant(formula: Formula) -> str | None:
    """Why it has one value whatever a model writes; None where it may differ."""
    if not formula.names:
        return "it reads no grader, and has the same value whatever a model writes."
    least, most = _bounds(formula)
    if most - least < ROUNDING:
        return f"it has the same value, {least:g}, whatever the graders that it reads say."
    return None


def _why_decided(formula: Formula, pass_threshold: float) -> str | None:
    """Why its verdict is the same whatever a model writes; None where it may differ."""
    least, most = _bounds(formula)
    if not reaches(most, pass_threshold):
        return f"its value is at most {most:g}, and passThreshold {pass_threshold:g}: no output can pass."
    if reaches(least, pass_threshold):
        return f"its value is at least {least:g}, and passThreshold {pass_threshold:g}: every output passes."
    return None


def _bounds(formula: Formula) -> tuple[float, float]:
    least, most = formula.bounds(0.0, 1.0)
    return min(1.0, max(0.0, least)), min(1.0, max(0.0, most))
