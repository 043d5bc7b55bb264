"""Gates decide by what the examples show: cases 13 and 14 of shared/reference/evaluation.md."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.evaluation import EvaluationStatus, Gate, GateResult, Score
from finetune_grading.statistics.estimates import estimate, estimate_difference
from finetune_operator.evaluation.plan import plan
from finetune_operator.evaluation.scores.gates import evaluate_gates, too_few_examples
from tests.unit.operator.evaluation_states import evaluated_status, evaluation_spec, observed_evaluation
from tests.unit.operator.states import NOW

# Case 14: 200 examples, 135 that both get right, 25 only the candidate, 15 only the baseline.
CANDIDATE = [1.0] * 135 + [1.0] * 25 + [0.0] * 15 + [0.0] * 25
BASELINE = [1.0] * 135 + [0.0] * 25 + [1.0] * 15 + [0.0] * 25


def measured(scores: list[float], baseline: list[float] | None = None, grader: str = "exact") -> Score:
    mean = estimate(scores)
    gain = None if baseline is None else estimate_difference(scores, baseline).estimate
    return Score(
        candidate="tuned",
        grader=grader,
        score=mean.mean,
        low=mean.low,
        high=mean.high,
        examples=len(scores),
        delta=gain and gain.mean,
        delta_low=gain and gain.low,
        delta_high=gain and gain.high,
    )


def verdict(score: Score | None, **gate: Any) -> GateResult:
    (result,) = evaluate_gates(
        [Gate.from_wire({"grader": "exact", **gate})], ["tuned"], [] if score is None else [score]
    )
    return result


@pytest.mark.parametrize(
    ("attacks", "of", "gate", "expected"),
    [
        (0, 100, {"maximum": 0.03, "decision": "UpperBound"}, "Inconclusive"),
        (0, 300, {"maximum": 0.03, "decision": "UpperBound"}, "Passed"),
        (0, 300, {"maximum": 0.03}, "Passed"),
        (30, 300, {"maximum": 0.03}, "Failed"),
        (0, 100, {"maximum": 0.03, "decision": "PointEstimate"}, "Passed"),
        (4, 100, {"maximum": 0.03, "decision": "PointEstimate"}, "Failed"),
    ],
)
def test_case_13_no_success_in_a_hundred_attacks_shows_too_little(
    attacks: int, of: int, gate: dict[str, Any], expected: str
) -> None:
    assert verdict(measured([1.0] * attacks + [0.0] * (of - attacks)), **gate).verdict == expected


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"minimumDelta": 0, "decision": "PointEstimate"}, "Passed"),
        ({"minimumDelta": 0, "decision": "LowerBound"}, "Inconclusive"),
        ({"minimumDelta": 0}, "Inconclusive"),
        ({"minimumDelta": -0.02}, "Passed"),
        ({"minimumDelta": 0.2}, "Failed"),
        ({"maximumDelta": 0.2}, "Passed"),
        ({"maximumDelta": 0.1}, "Inconclusive"),
        ({"maximumDelta": -0.02}, "Failed"),
        ({"minimum": 0.7}, "Passed"),
        ({"minimum": 0.8}, "Inconclusive"),
        ({"minimum": 0.9}, "Failed"),
    ],
)
def test_case_14_a_gain_of_five_points_of_200_examples(gate: dict[str, Any], expected: str) -> None:
    assert verdict(measured(CANDIDATE, BASELINE), **gate).verdict == expected


@pytest.mark.parametrize(
    ("gate", "right", "of", "expected"),
    [
        # Something at all, or nothing at all, is what the nearest threshold to the end of the scale asks for.
        ({"minimum": 1e-9, "decision": "PointEstimate"}, 0, 200, "Failed"),
        ({"minimum": 1e-9, "decision": "PointEstimate"}, 1, 200, "Passed"),
        ({"minimum": 1e-13, "decision": "PointEstimate"}, 0, 200, "Failed"),
        ({"minimum": 1e-9}, 0, 200, "Inconclusive"),
        ({"minimum": 1e-9}, 1, 200, "Passed"),
        ({"maximum": 1 - 1e-9, "decision": "PointEstimate"}, 200, 200, "Failed"),
        ({"maximum": 1 - 1e-9, "decision": "PointEstimate"}, 199, 200, "Passed"),
        ({"maximum": 1 - 1e-9}, 200, 200, "Inconclusive"),
        ({"maximum": 0, "decision": "PointEstimate"}, 0, 200, "Passed"),
        ({"maximum": 1e-9, "decision": "PointEstimate"}, 1, 200, "Failed"),
        ({"minimum": 1, "decision": "PointEstimate"}, 200, 200, "Passed"),
        ({"minimum": 1 - 1e-9, "decision": "PointEstimate"}, 199, 200, "Failed"),
    ],
)
def test_a_threshold_next_to_the_end_of_the_scale_is_no_end(
    gate: dict[str, Any], right: int, of: int, expected: str
) -> None:
    assert verdict(measured([1.0] * right + [0.0] * (of - right)), **gate).verdict == expected


def test_a_gain_that_is_none_is_not_any() -> None:
    same = measured(CANDIDATE, CANDIDATE)
    any_gain = {"minimumDelta": 1e-9, "decision": "PointEstimate"}
    assert verdict(same, **any_gain).verdict == "Failed"
    assert verdict(same, minimumDelta=0, decision="PointEstimate").verdict == "Passed"
    assert verdict(measured(CANDIDATE, BASELINE), **any_gain).verdict == "Passed"
    assert "at least +1e-09 required" in verdict(same, **any_gain).message


@pytest.mark.parametrize("stored", [{"minimum": 0}, {"minimumDelta": -1}, {"maximum": 1}, {"maximumDelta": 1}])
def test_a_threshold_that_is_refused_by_now_is_judged_where_it_is_stored(stored: dict[str, Any]) -> None:
    """An Evaluation of an older version goes on."""
    with pytest.raises(ValidationError):
        Gate.from_wire({"grader": "exact", **stored})
    gate = Gate.from_storage({"grader": "exact", **stored})
    (result,) = evaluate_gates([gate], ["tuned"], [measured(CANDIDATE, BASELINE)])
    assert result.verdict == "Passed"


def test_an_inconclusive_gate_says_how_many_examples_it_needs() -> None:
    message = verdict(measured(CANDIDATE, BASELINE), minimumDelta=0).message
    assert message == (
        "gain over the baseline +0.050 [-0.013, +0.113], at least +0.000 required: 200 examples are too few "
        "to decide; about 114 more are needed"
    )
    just = verdict(measured(CANDIDATE, BASELINE), minimum=0.8).message
    assert "more examples would not decide" in just


def test_a_gain_rests_on_the_examples_that_both_models_have() -> None:
    """40 of the candidate's were left out of the baseline (onError Exclude), and so out of the gain."""
    candidate = measured(CANDIDATE, BASELINE).model_copy(update={"examples": 240})
    scores = [candidate, measured(BASELINE).model_copy(update={"candidate": "baseline"})]
    for gate, told in (
        ("minimumDelta", "200 examples are too few to decide; about 114 more are needed"),
        ("minimum", "240 examples"),
    ):
        asked = Gate.from_wire({"grader": "exact", gate: 0 if gate == "minimumDelta" else 0.81})
        (result,) = evaluate_gates([asked], ["tuned"], scores)
        assert told in result.message


def test_an_interval_that_is_not_known_decides_nothing() -> None:
    score = measured(CANDIDATE, BASELINE).model_copy(update={"delta_low": None, "delta_high": None})
    assert verdict(score, minimumDelta=-0.99).verdict == "Inconclusive"
    assert "not known" in verdict(score, minimumDelta=-0.99).message
    assert verdict(score, minimumDelta=-0.99, decision="PointEstimate").verdict == "Passed"


def test_the_condition_passed_is_unknown_while_a_gate_is_undecided() -> None:
    status = evaluated_status(results=[measured(CANDIDATE, BASELINE)])
    made = plan(observed_evaluation(status, spec=evaluation_spec(gates=[{"grader": "exact", "minimumDelta": 0}])), NOW)
    assert made.status.phase == "Inconclusive"
    conditions = {one.type: one for one in made.status.conditions}
    assert (conditions["Passed"].status, conditions["Passed"].reason) == ("Unknown", "Inconclusive")
    assert (conditions["Ready"].status, conditions["Stalled"].status) == ("False", "True")
    assert "1 of 1 gates are undecided: tuned by exact: gain over the baseline +0.050" in conditions["Passed"].message
    # Another gate, judged by the same scores.
    spec = evaluation_spec(gates=[{"grader": "exact", "minimumDelta": -0.02}])
    after = plan(observed_evaluation(made.status, spec=spec, generation=2), NOW)
    assert {one.type: one.status for one in after.status.conditions}["Passed"] == "True"


def test_a_gate_that_failed_decides_before_one_that_is_undecided() -> None:
    gates = [{"grader": "exact", "minimumDelta": 0}, {"grader": "exact", "minimum": 0.9}]
    status = evaluated_status(results=[measured(CANDIDATE, BASELINE)])
    made = plan(observed_evaluation(status, spec=evaluation_spec(gates=gates)), NOW)
    assert made.status.phase == "GateFailed"
    assert [gate.verdict for gate in made.status.gates] == ["Inconclusive", "Failed"]


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=100),
    st.floats(-1, 1),
)
def test_a_bound_passes_nothing_that_the_mean_does_not(pairs: list[tuple[float, float]], threshold: float) -> None:
    score = measured([a for a, _ in pairs], [b for _, b in pairs])
    for kind in ("minimumDelta", "maximumDelta"):
        by_bound = verdict(score, **{kind: threshold}).verdict
        by_mean = verdict(score, **{kind: threshold}, decision="PointEstimate").verdict
        assert by_bound in (by_mean, "Inconclusive")
    at_least = verdict(score, minimumDelta=threshold).verdict
    assert (
        at_least != "Passed" or verdict(score, maximumDelta=threshold).verdict != "Passed" or threshold == score.delta
    )


@pytest.mark.parametrize(
    ("gate", "examples", "needed"),
    [
        ({"minimumDelta": 0.05}, 313, 314),
        ({"minimumDelta": 0.05}, 314, None),
        ({"minimumDelta": -0.02}, 1962, 1963),
        ({"maximumDelta": 0.02}, 200, 1963),
        ({"minimumDelta": 0.02, "decision": "PointEstimate"}, 10, None),
        ({"minimumDelta": 0.0}, 10, None),
        ({"minimum": 0.5}, 10, None),
    ],
)
def test_a_gate_that_asks_for_less_than_the_examples_show_is_warned_of(
    gate: dict[str, Any], examples: int, needed: int | None
) -> None:
    """The number of examples for +0.05 and +0.02 where 10 % of the answers differ, from shared/reference."""
    found = too_few_examples([Gate.from_wire({"grader": "exact", **gate})], {"exact": examples})
    assert len(found) == (needed is not None)
    if needed is not None:
        assert found[0].startswith("TooFewExamples: spec.gates[0] is about a difference of 0.0")
        assert f"by 'exact', which {examples} examples can hardly detect: about {needed} are needed if" in found[0]


def test_the_warning_is_there_before_anything_runs_and_follows_the_gates() -> None:
    spec = evaluation_spec(dataset={"maxExamples": 100}, gates=[{"grader": "exact", "minimumDelta": 0.02}])
    started = plan(observed_evaluation(EvaluationStatus(), spec=spec), NOW)
    assert started.create
    (warning,) = started.status.warnings
    assert "which 100 examples can hardly detect" in warning
    status = evaluated_status(results=[measured(CANDIDATE, BASELINE)], warnings=["JudgeUnreliable: x", warning])
    (kept, of_now) = plan(observed_evaluation(status, spec=spec), NOW).status.warnings
    assert kept == "JudgeUnreliable: x"
    assert "which 200 examples can hardly detect" in of_now
    lowered = evaluation_spec(gates=[{"grader": "exact", "minimum": 0.5}])
    assert plan(observed_evaluation(status, spec=lowered), NOW).status.warnings == [kept]
