"""Gates on who grades: agreement with people, by its interval, as other gates."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.evaluation import CalibrationStatus, Gate, GateResult
from finetune_operator.evaluation.plan import plan
from finetune_operator.evaluation.refusal import grading_refusal
from finetune_operator.evaluation.scores.gates import evaluate_gates
from finetune_operator.evaluation.scores.report_checks import calibrations_refusal
from tests.unit.operator.evaluation_states import evaluated_status, evaluation_spec, observed_evaluation
from tests.unit.operator.states import NOW

FOUND = CalibrationStatus(
    grader="tone",
    examples=100,
    agreement=0.9,
    agreement_low=0.82,
    agreement_high=0.95,
    kappa=0.7,
    kappa_low=0.55,
    kappa_high=0.82,
)


def verdict(found: CalibrationStatus | None, **gate: Any) -> GateResult:
    (result,) = evaluate_gates(
        [Gate.from_wire({"grader": "tone", **gate})], ["tuned"], [], calibrations=[] if found is None else [found]
    )
    assert result.calibration == gate["calibration"]
    return result


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"calibration": "Agreement", "minimum": 0.8}, "Passed"),
        ({"calibration": "Agreement", "minimum": 0.85}, "Inconclusive"),
        ({"calibration": "Agreement", "minimum": 0.96}, "Failed"),
        ({"calibration": "Kappa", "minimum": 0.5}, "Passed"),
        ({"calibration": "Kappa", "minimum": 0.6}, "Inconclusive"),
        ({"calibration": "Kappa", "minimum": 0.6, "decision": "PointEstimate"}, "Passed"),
        ({"calibration": "Kappa", "minimum": 0.9}, "Failed"),
    ],
)
def test_the_lower_bound_decides(gate: dict[str, Any], expected: str) -> None:
    assert verdict(FOUND, **gate).verdict == expected


def test_the_message_says_what_was_measured_and_how_many_more_outputs_would_tell() -> None:
    message = verdict(FOUND, calibration="Kappa", minimum=0.6).message
    assert message.startswith(
        "kappa with people 0.700 [0.550, 0.820], at least 0.600 required: 100 examples are too few"
    )
    assert verdict(FOUND, calibration="Agreement", minimum=0.8).message.startswith("agreement with people 0.900")


def test_nothing_is_decided_without_a_calibration_or_beyond_the_budget() -> None:
    assert verdict(None, calibration="Kappa", minimum=0.5).verdict == "Inconclusive"
    cut = FOUND.model_copy(update={"errored": 3, "over_budget": 3})
    assert verdict(cut, calibration="Kappa", minimum=0.5).verdict == "Inconclusive"
    assert "spec.budget was used up" in verdict(cut, calibration="Kappa", minimum=0.5).message


def test_a_finished_run_keeps_its_calibration_and_is_judged_by_the_gates_of_now() -> None:
    asked = {"model": "judge", "input": [{"content": "{{sample.output_text}}"}]}
    tone = {"name": "tone", "type": "ScoreModel", "scoreModel": {**asked, "calibration": {"uri": "s3://data/l.jsonl"}}}

    def phase(minimum: float) -> str | None:
        gates = [{"grader": "tone", "calibration": "Kappa", "minimum": minimum}]
        spec = evaluation_spec(graders=[tone], gates=gates)
        status = evaluated_status(calibrations=[FOUND])
        return plan(observed_evaluation(status, spec=spec), NOW).status.phase

    assert [phase(0.5), phase(0.6), phase(0.9)] == ["Passed", "Inconclusive", "GateFailed"]


def test_labels_are_fields_of_the_example() -> None:
    asked = {"model": "judge", "input": [{"content": "{{sample.output_text}}"}]}
    for label, told in (("{{sample.output_text}}", "is of an output"), ("{{human}}", "is not a variable")):
        calibration = {"uri": "s3://data/l.jsonl", "label": label}
        tone = {"name": "tone", "type": "ScoreModel", "scoreModel": {**asked, "calibration": calibration}}
        refused = grading_refusal(evaluation_spec(graders=[tone], gates=[]))
        assert refused is not None
        assert refused.message.startswith("spec.graders[0] calibration.label: ")
        assert told in refused.message


@pytest.mark.parametrize(
    "changes",
    [
        {"grader": "other"},
        {"agreement": 1.2},
        {"agreement_low": 0.95},
        {"kappa": -1.5},
        {"kappa_low": 0.75},
        {"examples": 0},
        {"errored": 101},
        {"errored": 2, "over_budget": 3},
    ],
)
def test_a_calibration_that_is_impossible_or_of_no_grader_is_not_taken(changes: dict[str, Any]) -> None:
    assert calibrations_refusal([FOUND], ["tone"]) is None
    assert calibrations_refusal([FOUND.model_copy(update=changes)], ["tone"]) is not None
    assert calibrations_refusal([FOUND, FOUND], ["tone"]) is not None
