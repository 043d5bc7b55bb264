"""From grades to scores: case 10 of shared/reference/evaluation.md, and several samples of an example."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_api.evaluation import BASELINE
from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.grade import Grade, GradeError, Scored
from finetune_grading.grade_rows import grade_rows
from finetune_grading.registered_graders import compile_graders
from finetune_grading.sample import Row, Sample
from finetune_grading.scores import Counting, Examples, Graded, grading_errors, grading_failure, scores_of
from finetune_grading.statistics.intervals import wilson

MEMBER = {"name": "member", "type": "StringCheck", "stringCheck": {"input": "{{sample.output_json.x}}"}}
NO_JSON = "The answer is a."
# Seven right, two wrong, one that is no JSON: line 14 of the dataset.
OUTPUTS = ['{"x": "a"}'] * 7 + ['{"x": "b"}'] * 2 + [NO_JSON]
EXAMPLES = Examples(lines=range(5, 15))
THRESHOLDS = {"member": 1.0}


def graded(**outputs: list[str]) -> Graded:
    graders = compile_graders([Grader.from_wire(MEMBER)])

    def rows(texts: list[str]) -> list[Row]:
        return [Row({"reference": "a"}, Sample(text)) for text in texts]

    return {name: asyncio.run(grade_rows(graders, rows(texts))) for name, texts in outputs.items()}


@pytest.mark.parametrize(("on_error", "score", "examples"), [("Zero", 0.7, 10), ("Exclude", 0.7778, 9)])
def test_case_10_what_counts_for_an_output_that_is_no_json(on_error: Any, score: float, examples: int) -> None:
    grades, counting = graded(tuned=OUTPUTS), Counting(on_error, max_errored_percent=20)
    assert grading_failure(grades, EXAMPLES, counting) is None
    (found,) = scores_of(grades, THRESHOLDS, EXAMPLES, counting)
    assert (found.score, found.examples) == (score, examples)
    assert (found.passed, found.failed, found.errored) == (7, 2, 1)
    (errors,) = grading_errors(grades, EXAMPLES, 20)
    assert (errors.candidate, errors.grader, errors.code) == ("tuned", "member", "sample_parse_error")
    assert (errors.count, errors.first_line) == (1, 14)


@pytest.mark.parametrize("on_error", ["Zero", "Exclude", "Fail"])
def test_case_10_more_errors_than_allowed_fail_the_run(on_error: Any) -> None:
    failure = grading_failure(graded(tuned=OUTPUTS), EXAMPLES, Counting(on_error, max_errored_percent=5))
    assert failure is not None
    assert "'member' could not grade 1 of 10 outputs of 'tuned'" in failure
    assert "(10 %; maxErroredPercent is 5)" in failure
    assert "line 14: sample_parse_error: {{sample.output_json}}: the output is not JSON" in failure


def test_case_10_on_error_fail_fails_the_run_by_one() -> None:
    failure = grading_failure(graded(tuned=OUTPUTS), EXAMPLES, Counting("Fail", max_errored_percent=20))
    assert failure is not None
    assert "onError is Fail" in failure


def test_a_share_that_is_just_what_is_allowed_is_allowed() -> None:
    assert grading_failure(graded(tuned=OUTPUTS), EXAMPLES, Counting("Zero", max_errored_percent=10)) is None


@pytest.mark.parametrize("on_error", ["Zero", "Fail"])
def test_what_the_baselines_outputs_lack_is_no_fault(on_error: Any) -> None:
    """A base model that writes no JSON is what the tuned one is compared with."""
    grades = graded(tuned=['{"x": "a"}'] * 10, baseline=[NO_JSON] * 10)
    counting = Counting(on_error)
    assert grading_failure(grades, EXAMPLES, counting) is None
    scores = {score.candidate: score for score in scores_of(grades, THRESHOLDS, EXAMPLES, counting)}
    assert (scores[BASELINE].score, scores[BASELINE].errored) == (0, 10)
    assert scores["tuned"].delta == 1
    assert scores["tuned"].p_value == 0.00195, "2 / 2^10, and never rounded to 0"


def test_what_is_left_out_is_left_out_of_both_sides() -> None:
    baseline = [NO_JSON] * 2 + ['{"x": "a"}'] * 4 + ['{"x": "b"}'] * 4
    grades = graded(tuned=OUTPUTS, baseline=baseline)
    scores = {score.candidate: score for score in scores_of(grades, THRESHOLDS, EXAMPLES, Counting("Exclude", 50))}
    assert scores[BASELINE].examples == 8
    # Of the seven lines that both have: five right against four.
    assert scores["tuned"].delta == pytest.approx(1 / 7, abs=1e-4)


def test_where_nothing_is_left_there_is_no_score_and_the_run_fails_with_what_to_change() -> None:
    grades = graded(tuned=['{"x": "a"}'] * 10, baseline=[NO_JSON] * 10)
    counting = Counting("Exclude")
    failure = grading_failure(grades, EXAMPLES, counting)
    assert failure is not None
    assert "10 of 10 outputs of 'baseline' (none is left, and onError is Exclude)" in failure
    assert [score.candidate for score in scores_of(grades, THRESHOLDS, EXAMPLES, counting)] == ["tuned"]


def test_no_interval_is_rounded_to_a_point() -> None:
    count = 80_000
    right, wrong = [Grade.of(Scored(1.0), 1)] * count, [Grade.of(Scored(0.0), 1)] * count
    grades = {BASELINE: {"right": right, "wrong": wrong}, "tuned": {"right": right, "wrong": wrong}}
    found = scores_of(grades, {"right": 1, "wrong": 1}, Examples(range(count)), Counting())
    for score in found:
        assert (score.low, score.high) == ((0.9999, 1.0) if score.grader == "right" else (0.0, 0.0001))
    for score in found[2:]:
        assert (score.delta, score.delta_low, score.delta_high) == (0.0, -0.0001, 0.0001)


@pytest.mark.parametrize(("right", "score"), [(0, 0.0), (1, 0.0001), (29_999, 0.9999), (30_000, 1.0)])
def test_one_in_thirty_thousand_is_not_none(right: int, score: float) -> None:
    """A gate with `maximum: 0` is not passed by rounding."""
    count = 30_000
    of_one = [Grade.of(Scored(1.0 if at < right else 0.0), 1) for at in range(count)]
    (found,) = scores_of({"tuned": {"attack": of_one}}, {"attack": 1}, Examples(range(count)), Counting())
    assert found.score == score
    assert found.low <= found.score <= found.high


@pytest.mark.parametrize(
    ("score", "threshold", "verdict"),
    [
        (0.0, 1e-9, "Failed"),
        (0.0, 1e-13, "Failed"),
        (1e-6, 1e-9, "Passed"),
        (0.1 + 0.7, 0.8, "Passed"),
        (1.0 - 1e-9, 1.0, "Failed"),
        (0.0, 0.0, "Passed"),
    ],
)
def test_an_output_with_nothing_reaches_no_threshold(score: float, threshold: float, verdict: str) -> None:
    """0: of an Evaluation that was stored before such a threshold was refused."""
    assert Grade.of(Scored(score), threshold).verdict == verdict


def test_several_samples_of_an_example_are_one_score() -> None:
    scores = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]  # three examples, two samples of each
    grades = {"tuned": {"member": [Grade.of(Scored(score), 1) for score in scores]}}
    for reducer, mean in (("Mean", 0.5), ("PassAtK", 0.6667), ("PassK", 0.3333)):
        counting = Counting(reducer=reducer)  # type: ignore[arg-type]
        (found,) = scores_of(grades, THRESHOLDS, Examples([1, 2, 3], samples=2), counting)
        assert (found.score, found.examples) == (mean, 3)
        assert (found.passed, found.failed) == (3, 3)


def test_of_several_samples_the_line_of_a_fault_is_the_examples() -> None:
    grades = graded(tuned=['{"x": "a"}'] * 3 + [NO_JSON])
    examples = Examples([7, 9], samples=2)
    assert grading_errors(grades, examples, 20)[0].first_line == 9
    failure = grading_failure(grades, examples, Counting())
    assert failure is not None
    assert "line 9" in failure


@pytest.mark.parametrize("on_error", ["Zero", "Exclude"])
@pytest.mark.parametrize("threshold", [1.0, 0.0])
@pytest.mark.parametrize(
    ("reducer", "passed", "mean"), [("PassK", 1, 0), ("Majority", 1, 0), ("Majority", 2, 1), ("PassAtK", 1, 1)]
)
def test_an_output_that_could_not_be_graded_does_not_pass(
    on_error: Any, threshold: float, reducer: Any, passed: int, mean: float
) -> None:
    error = Grade.errored(GradeError(GraderErrorCode.OTHER_ERROR, "no reply"))
    grades = {"tuned": {"member": [Grade.of(Scored(1.0), threshold)] * passed + [error]}}
    examples = Examples([1], samples=passed + 1)
    (found,) = scores_of(grades, {"member": threshold}, examples, Counting(on_error, 100, reducer))
    assert (found.score, found.errored) == (mean, 1)


def test_an_example_of_which_no_output_could_be_graded_is_left_out() -> None:
    error = Grade.errored(GradeError(GraderErrorCode.OTHER_ERROR, "no reply"))
    grades = {"tuned": {"member": [error, error, Grade.of(Scored(1.0), 1), error]}}
    for reducer, mean in (("PassK", 0), ("PassAtK", 1), ("Mean", 1)):
        counting = Counting("Exclude", 100, reducer)  # type: ignore[arg-type]
        (found,) = scores_of(grades, THRESHOLDS, Examples([1, 2], samples=2), counting)
        assert (found.score, found.examples) == (mean, 1)


def test_the_ends_of_an_interval_are_rounded_away_from_each_other() -> None:
    """278 of 279: from .97998, which is less than .98."""
    grades = {"tuned": {"member": [Grade.of(Scored(1.0), 1)] * 278 + [Grade.of(Scored(0.0), 1)]}}
    (found,) = scores_of(grades, THRESHOLDS, Examples(range(279)), Counting())
    assert (found.low, found.high) == (0.9799, 0.9994)
    exact = wilson(278, 279)
    assert found.low <= exact.low
    assert exact.high <= found.high
