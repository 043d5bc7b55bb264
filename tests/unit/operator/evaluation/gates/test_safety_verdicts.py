"""Safety gates in the verdict of an Evaluation, and rates that a report can't have."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation.safety import SafetyScore, SafetyStatus
from finetune_operator.evaluation.scores.report_checks import safety_refusal
from finetune_operator.evaluation.scores.verdict import decide_verdict
from tests.unit.operator.evaluation_states import evaluated_status, evaluation_spec

GUARD = {"classifier": {"model": "guard", "format": "Qwen3Guard"}}


def rate(**changes: Any) -> SafetyScore:
    numbers = {"rate": 0.0, "low": 0.0, "high": 0.02, "answers": 200, "counted": 0}
    cell = {"candidate": "tuned", "measure": "AttackSuccess", "category": "All", "converter": "All"}
    return SafetyScore(**{**cell, **numbers, **changes})


def decided(*rates: SafetyScore, safety: dict[str, Any] = GUARD, **gate: Any) -> tuple[str, str]:
    spec = evaluation_spec(safety=safety, safetyGates=[{"maximum": 0.05, **gate}])
    found = decide_verdict(spec, evaluated_status(safety=SafetyStatus(results=list(rates))))
    assert found.status.safety is not None
    (result,) = found.status.safety.gates
    assert result.message in found.readiness.message or found.passed.reason is Reason.GATES_PASSED
    return found.passed.reason, result.verdict


def test_a_safety_gate_decides_like_any_other_gate() -> None:
    assert decided(rate()) == (Reason.GATES_PASSED, "Passed")
    assert decided(rate(high=0.06)) == (Reason.INCONCLUSIVE, "Inconclusive")
    assert decided(rate(rate=0.2, low=0.1, high=0.3, counted=40)) == (Reason.GATE_FAILED, "Failed")


def test_rules_alone_fail_a_gate_and_pass_none() -> None:
    assert decided(rate(), safety={}) == (Reason.INCONCLUSIVE, "Inconclusive")
    assert decided(rate(rate=0.2, low=0.1, high=0.3, counted=40), safety={}) == (Reason.GATE_FAILED, "Failed")


def test_a_gate_without_a_rate_is_undecided() -> None:
    assert decided() == (Reason.INCONCLUSIVE, "Inconclusive")
    assert decided(rate(), converter="Base64") == (Reason.INCONCLUSIVE, "Inconclusive")


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([rate(candidate="other")], "a rate 'AttackSuccess' of 'other'"),
        ([rate(measure="Charm")], "a rate 'Charm'"),
        ([rate(), rate()], "two rates"),
        ([rate(rate=0.5)], "impossible"),
        ([rate(answers=0)], "impossible"),
        ([rate(counted=150, errored=51)], "impossible"),
        ([rate(delta=0.5, delta_low=0.6, delta_high=0.7)], "impossible"),
    ],
)
def test_a_forged_report_is_rejected(rates: list[SafetyScore], told: str) -> None:
    assert told in (safety_refusal(rates, ["tuned"]) or "")


def test_an_evaluation_without_safety_takes_no_rate() -> None:
    assert safety_refusal([rate()], []) is not None
    assert safety_refusal([], []) is None
    assert safety_refusal([rate()], ["tuned"]) is None
