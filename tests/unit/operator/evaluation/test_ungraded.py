"""With onError Zero, what could not be graded counts as 0 in the scores, and passes no gate by it."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.evaluation import BASELINE, GateResult, GradingErrors, Score
from finetune_grading.statistics.estimates import estimate, estimate_difference
from finetune_grading.ungraded import ungraded_outputs
from finetune_operator.evaluation.scores.gates import evaluate_gates
from tests.unit.operator.evaluation_states import evaluated_status, evaluation_spec


def measured(candidate: str, scores: list[float], errored: int, over: list[float] | None = None) -> Score:
    mean = estimate(scores)
    gain = None if over is None else estimate_difference(scores, over).estimate
    return Score(
        candidate=candidate,
        grader="exact",
        score=mean.mean,
        low=mean.low,
        high=mean.high,
        examples=len(scores),
        errored=errored,
        delta=gain and gain.mean,
        delta_low=gain and gain.low,
        delta_high=gain and gain.high,
    )


def verdict(gate: dict[str, Any], *, errored: int = 0, lacking: int = 0, broken: int = 0, **spec: Any) -> GateResult:
    """Of each model 5 of 1000 have 1; `errored` of the candidate's are Errored, the others of the baseline's."""
    scores = [1.0] * 5 + [0.0] * 995
    status = evaluated_status(
        results=[measured("tuned", scores, errored, scores), measured(BASELINE, scores, lacking + broken)],
        errors=[
            GradingErrors(candidate=BASELINE, grader="exact", code=code, count=count, first_line=7)
            for code, count in (("sample_parse_error", lacking), ("other_error", broken))
            if count
        ],
    )
    asked = evaluation_spec(gates=[{"grader": "exact", **gate}], **spec)
    (result,) = evaluate_gates(asked.gates, ["tuned"], status.results, ungraded_outputs(asked, status))
    return result


@pytest.mark.parametrize(
    ("gate", "counts", "expected"),
    [
        ({"maximum": 0.02}, {}, "Passed"),
        ({"maximum": 0.02}, {"errored": 50}, "Inconclusive"),
        ({"maximum": 0.08}, {"errored": 50}, "Passed"),
        ({"maximum": 0.02, "decision": "PointEstimate"}, {"errored": 50}, "Failed"),
        ({"maximum": 0.06, "decision": "PointEstimate"}, {"errored": 50}, "Passed"),
        ({"maximum": 0.02}, {"broken": 50}, "Passed"),
        ({"maximumDelta": 0.02}, {}, "Passed"),
        ({"maximumDelta": 0.02}, {"errored": 50}, "Inconclusive"),
        ({"maximumDelta": 0.02}, {"broken": 50, "lacking": 50}, "Passed"),
        ({"minimumDelta": -0.02}, {"errored": 50}, "Passed"),
        ({"minimumDelta": -0.02}, {"lacking": 50}, "Passed"),
        ({"minimumDelta": -0.02}, {"lacking": 50, "broken": 50}, "Inconclusive"),
        ({"minimumDelta": -0.02, "decision": "PointEstimate"}, {"broken": 50}, "Failed"),
        ({"minimum": 0.001}, {"errored": 50, "broken": 50}, "Passed"),
    ],
)
def test_the_score_that_is_worse_for_the_gate_counts(gate: dict[str, Any], counts: Any, expected: str) -> None:
    assert verdict(gate, **counts).verdict == expected


def test_the_message_says_what_the_verdict_rests_on() -> None:
    assert verdict({"maximum": 0.02}, errored=50).message == (
        "score 0.005 [0.002, 0.012], at most 0.020 required; score 0.055 [0.002, 0.077] if the 50 outputs that could "
        "not be graded had 1"
    )


def test_outputs_that_are_left_out_are_left_out() -> None:
    assert verdict({"maximum": 0.02}, errored=50, onError="Exclude").verdict == "Passed"


def test_of_several_outputs_of_an_example_each_has_its_share_of_a_mean_and_may_decide_alone_otherwise() -> None:
    for reducer, expected in (("Mean", "Passed"), ("Max", "Inconclusive")):
        generation = {"samplesPerExample": 10, "temperature": 1.0, "reducer": reducer}
        assert verdict({"maximum": 0.03}, errored=50, generation=generation).verdict == expected
