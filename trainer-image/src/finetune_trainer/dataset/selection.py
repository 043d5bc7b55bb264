"""Which completions of a teacher are kept, and why the others are not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from finetune_api.dataset import NotKept
from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import Grade, GradeError
from finetune_grading.graders.interface import CompiledGrader
from finetune_grading.graders.multi import MultiGrader
from finetune_trainer.outputs.output import Output

Cause = Literal["no_answer", "over_budget", "refused", "truncated", "unusable", "ungraded", "not_passed", "not_best"]
"""The fields of NotKept."""
FINISHED = frozenset({"stop", "tool_calls", "function_call"})
"""finish_reason of an answer that the teacher ended; others (content_filter, abort) may come with half of one."""


@dataclass(frozen=True)
class Completion:
    """A completion to the prompt of that number."""

    prompt: int
    sample: int
    output: Output
    cause: Cause | None = None
    """Why it is not kept."""
    error: GradeError | None = None
    """What kept it from being made or graded."""
    scores: Mapping[str, float] = field(default_factory=dict)


def completion_of(prompt: int, sample: int, output: Output) -> Completion:
    """The completion that an output is, before graders see it."""
    cause: Cause | None = None
    error = output.error
    if output.truncated or output.is_unfinished:
        cause = "truncated"
    elif error is not None:
        cause = "over_budget" if error.code is GraderErrorCode.BUDGET_EXCEEDED else "no_answer"
    elif output.refused:
        cause = "refused"
    elif output.finish_reason is not None and output.finish_reason not in FINISHED:
        cause = "no_answer"
        why = f"the API ended it by itself: its finish_reason is {output.finish_reason!r}"
        error = GradeError(GraderErrorCode.NO_OUTPUT, why)
    return Completion(prompt, sample, output, cause, error)


def graded(completion: Completion, grades: Mapping[str, Grade], graders: Sequence[CompiledGrader]) -> Completion:
    """The completion with its scores. It must pass every grader; what a Multi reads counts in that alone."""
    read = {name for grader in graders if isinstance(grader, MultiGrader) for name in grader.reads.values()}
    scores = {name: grade.score for name, grade in grades.items() if grade.score is not None}
    errors = [grade.error for name, grade in grades.items() if name not in read and grade.error is not None]
    failed = any(grade.verdict == "Failed" for name, grade in grades.items() if name not in read)
    cause: Cause | None = None
    if errors:
        cause = "over_budget" if errors[0].code is GraderErrorCode.BUDGET_EXCEEDED else "ungraded"
    elif failed:
        cause = "not_passed"
    return replace(completion, scores=scores, cause=cause, error=errors[0] if errors else None)


def best_alone(completions: Sequence[Completion], grader: str) -> list[Completion]:
    """Of the kept completions of each prompt only the one with the highest score; of equal ones the first."""
    best: dict[int, tuple[float, int]] = {}
    for at, one in enumerate(completions):
        if one.cause is None:
            best[one.prompt] = min(best.get(one.prompt, (2.0, at)), (-one.scores.get(grader, -1.0), at))
    chosen = {at for _, at in best.values()}
    return [
        one if one.cause is not None or at in chosen else replace(one, cause="not_best")
        for at, one in enumerate(completions)
    ]


def not_kept(completions: Sequence[Completion]) -> NotKept | None:
    """The counts by cause; None if all are kept."""
    counts = Counter(one.cause for one in completions if one.cause is not None)
    return NotKept(**{str(cause): count for cause, count in counts.items()}) if counts else None
