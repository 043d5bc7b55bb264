"""Rows graded by all graders of a spec."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finetune_grading.grade import Grade
from finetune_grading.graders.interface import CompiledGrader, RowsGrader
from finetune_grading.graders.multi import MultiGrader
from finetune_grading.sample import Row


async def grade_rows(
    graders: Sequence[CompiledGrader], rows: Sequence[Row], on_grade: Callable[[], None] = lambda: None
) -> dict[str, list[Grade]]:
    """The grades of each row by each grader, in the order of both. `on_grade` is called for each grade."""
    grades: dict[str, list[Grade]] = {}
    for grader in graders:
        if isinstance(grader, RowsGrader):
            grades[grader.name] = await grader.grade(rows, on_grade)
    for grader in graders:
        if isinstance(grader, MultiGrader):
            of_rows = [{name: grades[name][index] for name in grader.reads.values()} for index in range(len(rows))]
            grades[grader.name] = [grader.combine(of_row) for of_row in of_rows]
            for _ in rows:
                on_grade()
    return {grader.name: grades[grader.name] for grader in graders}
