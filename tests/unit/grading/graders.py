"""Graders of a spec, and the grade of one row by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from finetune_api.graders import Grader
from finetune_grading.grade import Grade
from finetune_grading.grade_rows import grade_rows
from finetune_grading.graders.interface import CompiledGrader, LocalGrader
from finetune_grading.registered_graders import compile_graders, load_graders
from finetune_grading.sample import Row, Sample
from finetune_grading.tool_calls import ToolCall


def compiled(**spec: Any) -> CompiledGrader:
    """The grader of a spec. Raises InvalidGraderError."""
    return all_compiled([Grader.from_wire({"name": "g", **spec})])[0]


def all_compiled(graders: list[Grader], judges: Mapping[str, Any] | None = None) -> list[CompiledGrader]:
    """The graders of specs, loaded: what a library takes to load is no output's time. Raises InvalidGraderError."""
    found = compile_graders(graders, judges or {})
    load_graders(graders)
    return found


def grade(grader: CompiledGrader, item: Mapping[str, Any], output: str, *calls: ToolCall) -> Grade:
    """What it says of one output."""
    if isinstance(grader, LocalGrader):
        return grader.grade_row(Row(item, Sample(output, calls)))
    return grade_all([grader], item, output, *calls)[grader.name]


def grade_all(
    graders: list[CompiledGrader], item: Mapping[str, Any], output: str, *calls: ToolCall
) -> dict[str, Grade]:
    """What each of several says of one output."""
    grades = asyncio.run(grade_rows(graders, [Row(item, Sample(output, calls))]))
    return {name: of_grader[0] for name, of_grader in grades.items()}
