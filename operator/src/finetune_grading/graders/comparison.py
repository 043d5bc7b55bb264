"""Graders that render two templates and compare the texts."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.graders import Grader, StringCheck, TextSimilarity
from finetune_grading.compiled import LocalGrader, item_variables
from finetune_grading.grade import Scored
from finetune_grading.templates import render


def compile_comparison(
    grader: Grader, spec: StringCheck | TextSimilarity, compare: Callable[[str, str], float], pass_threshold: float
) -> LocalGrader:
    """A grader that scores `compare(input, reference)`. Raises InvalidGraderError for a template that can't work."""
    return LocalGrader(
        grader.name,
        pass_threshold,
        item_variables(grader.name, {"input": spec.input, "reference": spec.reference}),
        lambda row: Scored(
            compare(render(spec.input, row.item, row.sample), render(spec.reference, row.item, row.sample))
        ),
    )
