"""Graders that render two templates and compare the texts."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.evaluation import StringCheck, TextSimilarity
from finetune_grading.grader import CompiledGrader, InvalidGraderError
from finetune_grading.templates import TemplateError, render, variables


def compile_comparison(
    name: str, spec: StringCheck | TextSimilarity, compare: Callable[[str, str], float]
) -> CompiledGrader:
    """A grader that scores `compare(input, reference)`. Raises InvalidGraderError for a template that can't work."""
    try:
        named = variables(spec.input) + variables(spec.reference)
    except TemplateError as error:
        raise InvalidGraderError(name, str(error)) from error
    return CompiledGrader(
        name=name,
        item_variables=tuple(dict.fromkeys(variable for variable in named if variable.startswith("item."))),
        score=lambda item, sample: compare(render(spec.input, item, sample), render(spec.reference, item, sample)),
    )
