"""The gates of an Evaluation: what a score must reach, and when the verdict is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import ConditionType
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.evaluation.plan import plan
from finetune_operator.models.resolve import ResolvedModel
from tests.unit.operator.evaluation.plans import JOB, decide
from tests.unit.operator.evaluation_states import (
    SCORES,
    evaluated_status,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    score,
    tuned,
)
from tests.unit.operator.states import (
    NOW,
    Decided,
    Decision,
    job,
    later,
    succeeded_pod,
)

# Gates.


def judged(gates: list[dict[str, Any]], scores: list[Any]) -> Decided:
    spec = evaluation_spec(gates=gates)
    return decide(observed_evaluation(evaluated_status(results=scores), spec=spec))


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        ({"minimum": 0.75}, True),
        ({"minimum": 0.7501}, False),
        ({"minimum": 0.001}, True),
        ({"minimumDelta": 0.5}, True),
        ({"minimumDelta": 0.5001}, False),
        ({"minimumDelta": -0.999}, True),
    ],
)
def test_a_gate_demands_a_score_or_a_gain(gate: dict[str, float], passes: bool) -> None:
    result = judged([{"grader": "exact", "decision": "PointEstimate", **gate}], SCORES)
    assert result.decision.passed is passes
    assert result.decision.stalled is not passes
    if not passes:
        assert (result.decision.phase, result.decision.reason) == ("GateFailed", "GateFailed")
        assert "1 of 1 gates failed: tuned by exact: " in result.message
        assert "required" in result.message


def test_a_gain_that_only_rounding_keeps_from_the_gate_passes() -> None:
    gained = 0.9 - 0.8
    assert gained < 0.1
    gate = {"grader": "exact", "minimumDelta": 0.1, "decision": "PointEstimate"}
    assert judged([gate], [score("tuned", 0.9, delta=gained)]).decision.passed


def test_without_gates_it_passes() -> None:
    assert judged([], SCORES).decision.passed is True


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [score("baseline", 0.25)],
        [score("somebody-else", 1.0, delta=1.0)],
        [score("tuned", 1.0, delta=1.0, grader="another")],
    ],
    ids=["no scores at all", "only the baseline's", "somebody else's", "by another grader"],
)
def test_a_candidate_without_a_score_fails_every_gate(scores: list[Any]) -> None:
    result = judged([{"grader": "exact", "minimum": 0.001}], scores)
    assert result.decision.passed is False
    assert "tuned by exact: there is no score by this grader" in result.message


def test_a_gain_is_unknown_without_a_baseline() -> None:
    assert "no baseline" in judged([{"grader": "exact", "minimumDelta": 0.0}], [score("tuned", 1.0)]).message


def test_each_gate_judges_each_candidate() -> None:
    both = [{"name": name, "model": {"uri": f"s3://models/{name}"}} for name in ("first", "second")]
    spec = evaluation_spec(
        candidates=both,
        baseline={"model": {"uri": "s3://models/base"}},
        gates=[{"grader": "exact", "minimum": 0.5}, {"grader": "exact", "minimum": 0.8}],
    )
    status = evaluated_status(results=[score("first", 0.9), score("second", 0.7)], candidate_digests={})
    observed = observed_evaluation(
        status,
        spec=spec,
        candidates=tuple((name, ResolvedModel(ModelSource(uri=f"s3://models/{name}"))) for name in ("first", "second")),
        baseline=ResolvedModel(ModelSource(uri="s3://models/base")),
    )
    result = decide(observed)
    assert [(gate.candidate, gate.verdict) for gate in result.status.gates] == [
        ("first", "Passed"),
        ("second", "Passed"),
        ("first", "Passed"),
        ("second", "Failed"),
    ]
    assert result.decision.passed is False


def test_a_changed_gate_is_judged_without_a_new_run() -> None:
    passed = plan(observed_evaluation(evaluated_status()), NOW).status
    strict = evaluation_spec(gates=[{"grader": "exact", "minimum": 0.99}])
    result = decide(observed_evaluation(passed, spec=strict, generation=2))
    assert result.decision == Decision(
        "GateFailed", "GateFailed", stalled=True, passed=False, event="Warning GateFailed"
    )
    condition = next(item for item in result.status.conditions if item.type == ConditionType.PASSED)
    assert condition.observed_generation == 2


def test_an_empty_report_completes_and_passes_no_gate() -> None:
    observed = observed_evaluation(
        evaluation_status(), job(JOB, "Complete"), pods=(succeeded_pod(JOB, EvaluationReport(scores=[])),)
    )
    first = decide(observed)
    assert (first.decision.phase, first.decision.passed) == ("GateFailed", False)
    again = observed_evaluation(first.status, job(JOB, "Complete"), pods=observed.pods)
    assert plan(again, later(60)).status == first.status


def test_the_verdict_is_taken_back_while_another_model_is_evaluated() -> None:
    """A ModelDeployment must not read the old model's verdict as the new one's."""
    passed = plan(observed_evaluation(evaluated_status()), NOW).status
    result = decide(observed_evaluation(passed, model=tuned("sha256:bb")))
    assert result.decision.passed is None
