"""Which completions of a teacher are kept."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.dataset import NotKept
from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.grade import Grade, GradeError, Scored
from finetune_grading.registered_graders import check_graders
from finetune_grading.sample import Sample
from finetune_trainer.dataset.selection import Completion, best_alone, completion_of, graded, not_kept
from finetune_trainer.outputs.output import Output

BUDGET = GradeError(GraderErrorCode.BUDGET_EXCEEDED, "used up")
SERVER = GradeError(GraderErrorCode.MODEL_GRADER_SERVER_ERROR, "down", passing=True)
GRADERS = check_graders(
    [
        Grader.from_wire({"name": "one", "type": "StringCheck", "stringCheck": {}}),
        Grader.from_wire({"name": "two", "type": "StringCheck", "stringCheck": {}}),
    ]
)
FORMULA = check_graders(
    [
        Grader.from_wire({"name": "one", "type": "StringCheck", "stringCheck": {}}),
        Grader.from_wire({"name": "two", "type": "StringCheck", "stringCheck": {}}),
        Grader.from_wire({"name": "sum", "type": "Multi", "multi": {"calculateOutput": "0.5*one + 0.5*two"}}),
    ]
)


def output(text: str = "yes", **changes: Any) -> Output:
    return Output(Sample(text), **changes)


def scored(**scores: float) -> dict[str, Grade]:
    return {name: Grade.of(Scored(score), 1.0 if name != "sum" else 0.5) for name, score in scores.items()}


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (output(), None),
        (output(error=BUDGET), "over_budget"),
        (output(error=SERVER), "no_answer"),
        (output(refused=True), "refused"),
        (output(truncated=True), "truncated"),
        (output("", error=SERVER, truncated=True), "truncated"),
        (output(completion_tokens=8, batch=0), None),
        (output(completion_tokens=7, batch=0, is_unfinished=True), "truncated"),
        (output(finish_reason="stop"), None),
        (output(finish_reason="tool_calls"), None),
        (output(finish_reason="function_call"), None),
        (output(finish_reason="content_filter"), "no_answer"),
        (output(finish_reason="abort"), "no_answer"),
        (output(finish_reason="length", truncated=True), "truncated"),
    ],
)
def test_an_output_is_a_completion_or_is_not_with_its_cause(made: Output, cause: str | None) -> None:
    assert completion_of(3, 1, made).cause == cause


def test_half_an_answer_says_what_ended_it() -> None:
    error = completion_of(0, 0, output("half", finish_reason="content_filter")).error
    assert error is not None
    assert "finish_reason is 'content_filter'" in error.details
    assert not error.passing


def test_every_grader_must_pass_and_what_a_formula_reads_counts_in_it_alone() -> None:
    made = completion_of(0, 0, output())
    assert graded(made, scored(one=1, two=1), GRADERS).cause is None
    assert graded(made, scored(one=1, two=0), GRADERS).cause == "not_passed"
    passed = graded(made, scored(one=1, two=0, sum=0.5), FORMULA)
    assert (passed.cause, passed.scores) == (None, {"one": 1.0, "two": 0.0, "sum": 0.5})
    assert graded(made, scored(one=1, two=0, sum=0.4), FORMULA).cause == "not_passed"


def test_what_could_not_be_graded_is_not_kept() -> None:
    made = completion_of(0, 0, output())
    down = graded(made, scored(one=1) | {"two": Grade.errored(SERVER)}, GRADERS)
    assert (down.cause, down.error) == ("ungraded", SERVER)
    assert graded(made, scored(one=1) | {"two": Grade.errored(BUDGET)}, GRADERS).cause == "over_budget"


def test_the_best_of_each_prompt_is_kept_and_of_equal_ones_the_first() -> None:
    scores = [(0, 0.5), (0, 0.9), (0, 0.9), (1, 0.0), (2, 0.7)]
    made = [Completion(prompt, at, output(), scores={"g": score}) for at, (prompt, score) in enumerate(scores)]
    made.append(Completion(2, 5, output(), cause="not_passed", scores={"g": 1.0}))
    causes = [one.cause for one in best_alone(made, "g")]
    assert causes == ["not_best", None, "not_best", None, None, "not_passed"]


def test_each_cause_is_counted() -> None:
    made = [Completion(0, 0, output(), cause) for cause in ("refused", "refused", None, "not_best")]  # type: ignore[arg-type]
    assert not_kept(made) == NotKept(refused=2, not_best=1)
    assert not_kept(made[2:3]) is None
