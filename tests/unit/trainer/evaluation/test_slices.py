"""Slices of a dataset, and which of them the status has."""

from __future__ import annotations

from finetune_api.evaluation import BASELINE, MOST_SLICE_SCORES, GatedSlice, GatedSliceStatus
from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import Grade, GradeError, Scored
from finetune_grading.scores import Counting, Examples, Graded
from finetune_trainer.evaluation.slices import MOST_SLICES, Slice, found_of_gated, key_of, reported, slices_of
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt

BY = "{{item.language}}"
GRADERS = ("exact", *(f"g{at}" for at in range(7)))
RIGHT = Grade.of(Scored(1.0), 1.0)
LACKING = Grade.errored(GradeError(GraderErrorCode.SAMPLE_PARSE_ERROR, "no JSON"))
SILENT = Grade.errored(GradeError(GraderErrorCode.NO_OUTPUT, "no answer"))
OVER = Grade.errored(GradeError(GraderErrorCode.BUDGET_EXCEEDED, "used up"))


def sliced(languages: list[str], grades: Graded, *gated: GatedSlice) -> list[Slice]:
    examples = [HeldOutExample(at, Prompt("x"), {"language": one}) for at, one in enumerate(languages, start=1)]
    graded = Examples(lines=[example.line for example in examples])
    return slices_of([BY], examples, grades, dict.fromkeys(GRADERS, 1.0), graded, Counting(), gated)


def test_what_gates_are_about_is_reported_first_however_small_it_is() -> None:
    large = [f"l{at}" for at in range(MOST_SLICES + 10) for _ in range(3)]
    languages = [*large, "rare"]
    names = (BASELINE, "tuned", "other")
    grades = {name: {grader: [RIGHT] * len(languages) for grader in GRADERS} for name in names}
    rare = GatedSlice(by=BY, value="rare", grader="exact")
    without = reported(sliced(languages, grades))
    assert "rare" not in [one.value for one in without]
    found = reported(sliced(languages, grades, rare), [rare])
    assert [(one.value, one.candidate, one.examples) for one in found[:2]] == [("rare", name, 1) for name in names[1:]]
    assert len(found) == MOST_SLICE_SCORES


def test_no_grader_that_no_gate_reads_takes_the_place_of_one() -> None:
    """3 candidates by 8 graders on 3 slices are 72 scores, of which the gates read 9."""
    languages = ["en"] * 30 + ["de"] * 20 + ["fr"] * 2
    names = (BASELINE, "one", "two", "three")
    grades = {name: {grader: [RIGHT] * len(languages) for grader in GRADERS} for name in names}
    gated = [GatedSlice(by=BY, value=value, grader="g6") for value in ("fr", "de", "en")]
    found = reported(sliced(languages, grades, *gated), gated)
    assert len(found) == 72
    assert {(one.value, one.candidate) for one in found[:9]} == {
        (value, name) for value in ("en", "de", "fr") for name in names[1:]
    }
    assert {one.grader for one in found[:9]} == {"g6"}


def test_of_what_gates_are_about_the_examples_are_counted_also_where_none_is_graded_or_there_is_none() -> None:
    grades = {"tuned": {"exact": [SILENT, RIGHT]}}
    gated = [GatedSlice(by=BY, value=value, grader="exact") for value in ("de", "xx")]
    assert found_of_gated(sliced(["de", "en"], grades, *gated), gated) == [
        GatedSliceStatus(by=BY, value="de", grader="exact", examples=1),
        GatedSliceStatus(by=BY, value="xx", grader="exact", examples=0),
    ]


def test_what_could_not_be_graded_is_counted_by_whose_it_is() -> None:
    grades = {BASELINE: {"exact": [LACKING, SILENT, OVER, RIGHT]}, "tuned": {"exact": [LACKING, SILENT, RIGHT, OVER]}}
    (found,) = reported(sliced(["de"] * 4, grades))
    assert (found.errored, found.baseline_errored, found.over_budget) == (3, 2, 2)
    (clean,) = reported(sliced(["de"], {"tuned": {"exact": [RIGHT]}}))
    assert (clean.errored, clean.baseline_errored, clean.over_budget) == (None, None, None)


def test_long_texts_that_begin_alike_are_slices_of_their_own() -> None:
    """A gate on the one must not read the scores of the other."""
    right, wrong = ("y" * 2000 + end for end in ("a", "b"))
    grades = {"tuned": {"exact": [RIGHT, Grade.of(Scored(0.0), 1.0), RIGHT]}}
    keys = [key_of(right), key_of(wrong), "short"]
    gated = [GatedSlice(by=BY, value=key, grader="exact") for key in keys]
    slices = sliced([right, wrong, "short"], grades, *gated)
    assert {one.value: one.score for one in reported(slices, gated)} == dict(zip(keys, [1.0, 0.0, 1.0], strict=True))
    assert [one.examples for one in found_of_gated(slices, gated)] == [1, 1, 1]
    assert [len(key) for key in keys] == [1024, 1024, 5]
    assert key_of(right).startswith("y" * 1000)
