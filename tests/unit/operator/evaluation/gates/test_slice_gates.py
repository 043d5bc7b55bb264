"""Gates on a slice: only the examples of one language, one customer, one kind of question."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.evaluation import EvaluationSpec, GatedSlice, GatedSliceStatus, GateResult, SliceReference, SliceScore
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_operator.evaluation.plan import plan
from tests.unit.operator.evaluation.plans import JOB, NEW, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    evaluated_status,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.states import NOW, job, succeeded_pod

BY = "{{item.language}}"
GERMAN = {"by": BY, "value": "de"}


def spec_with(*gates: dict[str, Any], **changes: Any) -> EvaluationSpec:
    dataset = {"uri": "s3://data/test.jsonl", "slices": [BY]}
    return evaluation_spec(dataset=dataset, gates=[{"grader": "exact", **gate} for gate in gates], **changes)


def in_german(**changes: Any) -> SliceScore:
    numbers: dict[str, Any] = {"score": 0.8, "low": 0.7, "high": 0.88, "examples": 100}
    return SliceScore(by=BY, value="de", candidate="tuned", grader="exact", **{**numbers, **changes})


def judged(spec: EvaluationSpec, *slices: SliceScore) -> list[GateResult]:
    return plan(observed_evaluation(evaluated_status(slices=list(slices)), spec=spec), NOW).status.gates


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        ({"minimum": 0.6}, "Passed"),
        ({"minimum": 0.75}, "Inconclusive"),
        ({"minimum": 0.9}, "Failed"),
        ({"maximum": 0.9}, "Passed"),
        ({"minimumDelta": -0.1}, "Passed"),
        ({"minimumDelta": 0.0}, "Inconclusive"),
        ({"minimum": 0.75, "decision": "PointEstimate"}, "Passed"),
    ],
)
def test_a_gate_on_a_slice_is_judged_by_its_score_and_interval(gate: dict[str, Any], verdict: str) -> None:
    """Of all examples, the score is 0.75 with a gain of 0.5."""
    spec = spec_with({**gate, "slice": GERMAN})
    (result,) = judged(spec, in_german(delta=-0.01, delta_low=-0.06, delta_high=0.04))
    assert (result.verdict, result.slice) == (verdict, SliceReference(**GERMAN))


def test_a_slice_that_fails_fails_the_evaluation_and_is_named() -> None:
    spec = spec_with({"minimum": 0.5}, {"minimum": 0.9, "slice": GERMAN})
    result = decide(observed_evaluation(evaluated_status(slices=[in_german()]), spec=spec))
    assert result.decision.reason == "GateFailed"
    assert "tuned by exact where {{item.language}} is 'de': score 0.800 [0.700, 0.880]" in result.message


def test_a_slice_without_a_score_is_no_pass() -> None:
    spec = spec_with({"minimum": 0.1, "slice": {"by": BY, "value": "fr"}})
    (result,) = judged(spec, in_german())
    assert result.verdict == "Inconclusive"
    assert "change spec.runId" in result.message
    decision = decide(observed_evaluation(evaluated_status(slices=[in_german()]), spec=spec)).decision
    assert decision.reason == "Inconclusive"


@pytest.mark.parametrize(
    ("gate", "changes", "verdict"),
    [
        ({"maximum": 0.9}, {"errored": 30}, "Inconclusive"),
        ({"minimum": 0.6}, {"errored": 30}, "Passed"),
        ({"minimumDelta": -0.1}, {"baseline_errored": 30}, "Inconclusive"),
        ({"minimumDelta": -0.1}, {"errored": 30}, "Passed"),
        ({"minimum": 0.6}, {"over_budget": 1}, "Inconclusive"),
    ],
)
def test_no_gate_on_a_slice_passes_by_what_could_not_be_graded(
    gate: dict[str, Any], changes: dict[str, Any], verdict: str
) -> None:
    spec = spec_with({**gate, "slice": GERMAN})
    (result,) = judged(spec, in_german(delta=0.05, delta_low=0.0, delta_high=0.1, **changes))
    assert result.verdict == verdict


def test_a_small_slice_is_too_few_examples_for_a_small_gain() -> None:
    spec = spec_with({"minimumDelta": -0.1, "slice": GERMAN})
    status = evaluated_status(slices=[in_german(delta=0.0, delta_low=-0.05, delta_high=0.05, examples=40)])
    (warning,) = plan(observed_evaluation(status, spec=spec), NOW).status.warnings
    assert "spec.gates[0]" in warning
    assert "which 40 examples can hardly detect" in warning


@pytest.mark.parametrize(
    ("gated", "told"),
    [
        ([], "report.json has the scores of all slices. If the gate is newer than the run, change spec.runId."),
        ([{"value": "de"}], "the gate is newer than the run"),
        ([{"grader": "kind"}], "the gate is newer than the run"),
        ([{"examples": 0}], "the dataset has no example of this slice. Correct `value`."),
        ([{"left_out": True}], "had no room for the score of this slice of 12 examples; report.json has it"),
        ([{}], "none of the 12 examples of this slice counts"),
    ],
    ids=["none then, or not known", "another slice", "another grader", "no example", "no room", "none graded"],
)
def test_a_gate_without_a_score_says_why(gated: list[dict[str, Any]], told: str) -> None:
    known = {"by": BY, "value": "fr", "grader": "exact", "examples": 12}
    said = [GatedSliceStatus(**{**known, **one}) for one in gated]
    spec = spec_with({"minimum": 0.1, "slice": {"by": BY, "value": "fr"}})
    (result,) = plan(observed_evaluation(evaluated_status(gated_slices=said), spec=spec), NOW).status.gates
    assert (result.verdict, told in result.message) == ("Inconclusive", True), result.message


def test_what_the_run_found_of_gated_slices_is_in_the_status() -> None:
    gated = [GatedSliceStatus(**GERMAN, grader="exact", examples=0)]
    said = succeeded_pod(JOB, EVALUATION_REPORT.model_copy(update={"gated_slices": gated}))
    observed = observed_evaluation(evaluation_status(), job(JOB, "Complete"), pods=(said,), spec=spec_with())
    assert decide(observed).status.gated_slices == gated


def test_the_pod_reports_gated_slices_first() -> None:
    gates = [{limit: 0.5, "slice": GERMAN} for limit in ("minimum", "maximum")]
    (config_map, _) = plan(observed_evaluation(NEW, spec=spec_with(*gates)), NOW).create
    run = EvaluateRun.model_validate_json(config_map["data"]["run.json"])
    assert run.gated_slices == [GatedSlice(**GERMAN, grader="exact")]


def test_a_slice_needs_a_value() -> None:
    with pytest.raises(ValidationError, match="value"):
        spec_with({"minimum": 0.5, "slice": {"by": BY}})
