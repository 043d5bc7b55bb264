"""Graders that render two templates and compare the texts."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.graders import Grader, GraderErrorCode, StringCheck, TextSimilarity
from finetune_grading.grade import Scored
from finetune_grading.graders.interface import InvalidGraderError, LocalGrader, item_variables
from finetune_grading.templates import render, render_with, variables


def compile_comparison(
    grader: Grader, spec: StringCheck | TextSimilarity, compare: Callable[[str, str], float], pass_threshold: float
) -> LocalGrader:
    """A grader that scores `compare(input, reference)`. Raises InvalidGraderError for a template that can't work."""
    return LocalGrader(
        grader.name,
        pass_threshold,
        compared_variables(grader.name, spec),
        lambda row: Scored(
            compare(render(spec.input, row.item, row.sample), render(spec.reference, row.item, row.sample))
        ),
    )


def compared_variables(grader: str, spec: StringCheck | TextSimilarity) -> tuple[str, ...]:
    """The fields of an example that both templates read.

    Raises InvalidGraderError, also where the score is the same whatever a model writes: its gate would pass anything.
    """
    fields = item_variables(grader, {"input": spec.input, "reference": spec.reference})
    if not any(name.startswith("sample.") for text in (spec.input, spec.reference) for name in variables(text)):
        problem = "input: neither it nor reference reads anything of the output; use {{sample.output_text}}."
    elif _spelled(spec.input) == _spelled(spec.reference):
        problem = "input: it is compared with itself; set another reference."
    elif isinstance(spec, StringCheck) and spec.operation in ("Like", "ILike") and not spec.reference:
        problem = "reference: it is empty, and every text contains that."
    else:
        return fields
    raise InvalidGraderError(grader, problem, GraderErrorCode.INVALID_VARIABLE_ERROR)


def _spelled(template: str) -> str:
    """The template in one spelling: spaces within braces don't count."""
    return render_with(template, lambda name: f"{{{{{name}}}}}")
