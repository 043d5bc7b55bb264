"""Slices of a dataset, and which of them the status has."""

from __future__ import annotations

from finetune_api.evaluation import BASELINE, MOST_SLICE_SCORES
from finetune_api.evaluation_results import SliceReference
from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import Grade, GradeError, Scored
from finetune_grading.scores import Counting, Examples, Graded
from finetune_trainer.evaluation.heldout import HeldOutExample, Prompt
from finetune_trainer.evaluation.slices import MOST_SLICES, Slice, reported, slices_of

BY = "{{item.language}}"
RIGHT = Grade.of(Scored(1.0), 1.0)
LACKING = Grade.errored(GradeError(GraderErrorCode.SAMPLE_PARSE_ERROR, "no JSON"))
SILENT = Grade.errored(GradeError(GraderErrorCode.NO_OUTPUT, "no answer"))
OVER = Grade.errored(GradeError(GraderErrorCode.BUDGET_EXCEEDED, "used up"))


def sliced(languages: list[str], grades: Graded, *gated: SliceReference) -> list[Slice]:
    examples = [HeldOutExample(at, Prompt("x"), {"language": one}) for at, one in enumerate(languages, start=1)]
    graded = Examples(lines=[example.line for example in examples])
    return slices_of([BY], examples, grades, {"exact": 1.0}, graded, Counting(), gated)


def test_what_gates_are_about_is_reported_first_however_small_it_is() -> None:
    large = [f"l{at}" for at in range(MOST_SLICES + 10) for _ in range(3)]
    languages = [*large, "rare"]
    grades = {name: {"exact": [RIGHT] * len(languages)} for name in (BASELINE, "tuned")}
    rare = SliceReference(by=BY, value="rare")
    without = reported(sliced(languages, grades))
    assert "rare" not in [one.value for one in without]
    found = reported(sliced(languages, grades, rare), [rare])
    assert (found[0].value, found[0].candidate, found[0].examples) == ("rare", "tuned", 1)
    assert len(found) == MOST_SLICE_SCORES


def test_what_could_not_be_graded_is_counted_by_whose_it_is() -> None:
    grades = {BASELINE: {"exact": [LACKING, SILENT, OVER, RIGHT]}, "tuned": {"exact": [LACKING, SILENT, RIGHT, OVER]}}
    (found,) = reported(sliced(["de"] * 4, grades))
    assert (found.errored, found.baseline_errored, found.over_budget) == (3, 2, 2)
    (clean,) = reported(sliced(["de"], {"tuned": {"exact": [RIGHT]}}))
    assert (clean.errored, clean.baseline_errored, clean.over_budget) == (None, None, None)
