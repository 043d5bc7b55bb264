"""The verdict on a run that has its scores: Passed, GateFailed or Inconclusive, by the current gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_api.evaluation import MOST_WARNINGS, BestCheckpoint, EvaluationSpec, EvaluationStatus, GateResult
from finetune_api.evaluation.safety import SafetyGateResult
from finetune_grading.safety_gates import evaluate_safety_gates
from finetune_grading.ungraded import ungraded_in_slice, ungraded_outputs
from finetune_operator.core.conditions import Readiness, ready, stalled
from finetune_operator.evaluation.candidates import (
    CHOSEN_BY_SCORE,
    best_checkpoints,
    chosen_by_score,
    gated_names,
)
from finetune_operator.evaluation.scores.gates import TOO_FEW_EXAMPLES, evaluate_gates, summary, too_few_examples


@dataclass(frozen=True)
class RunVerdict:
    """What a run comes to. `status`: with its gates and warnings; `passed`: the condition Passed."""

    status: EvaluationStatus
    readiness: Readiness
    passed: Readiness


def decide_verdict(spec: EvaluationSpec, status: EvaluationStatus) -> RunVerdict:
    """Judge the scores in the status: one failed gate fails the run, one undecided gate leaves it Inconclusive."""
    best = best_checkpoints(spec, status)
    gates = evaluate_gates(
        spec.gates,
        gated_names(spec, best),
        status.results,
        ungraded_outputs(spec, status),
        status.slices,
        lambda score, of_baseline: ungraded_in_slice(spec, score, of_baseline=of_baseline),
        status.gated_slices or None,  # a status has no empty lists
        status.calibrations,
    )
    before = {_subject(gate): gate for gate in status.gates}
    kept = [gate.over(before.get(_subject(gate))) for gate in gates]
    update = {"gates": kept, "warnings": _warnings(spec, status, best), "best_checkpoints": best}
    if best:  # Another one may be the best if the first gate is by another grader now.
        update["summary"] = summary(spec.graders[0].name, status.results, gated_names(spec, best)[0])
    attacked = _safety_gates(spec, status, gated_names(spec, best))
    if status.safety is not None:
        update["safety"] = status.safety.model_copy(update={"gates": attacked})
    status = status.model_copy(update=update)
    judged: list[GateResult | SafetyGateResult] = [*gates, *attacked]
    failed = [gate for gate in judged if gate.verdict == "Failed"]
    undecided = [gate for gate in judged if gate.verdict == "Inconclusive"]
    if failed:
        readiness = stalled(Reason.GATE_FAILED, f"{len(failed)} of {len(judged)} gates failed: {_described(failed)}.")
        return RunVerdict(status, readiness, passed=readiness)
    if any(score.over_budget for score in status.results):
        readiness = stalled(Reason.BUDGET_EXCEEDED, _budget_message(status))
        return RunVerdict(status, readiness, passed=readiness)
    if undecided:
        message = f"{len(undecided)} of {len(judged)} gates are undecided: {_described(undecided)}."
        readiness = stalled(Reason.INCONCLUSIVE, message)
        return RunVerdict(status, readiness, passed=readiness)
    text = "Every gate passed." if judged else "Evaluated; the spec has no gate."
    return RunVerdict(status, ready(Reason.EVALUATED, status.summary or text), passed=ready(Reason.GATES_PASSED, text))


def _subject(gate: GateResult) -> tuple[object, ...]:
    """What a gate is about, by which its result is found again."""
    return gate.candidate, gate.grader, gate.slice, gate.calibration


def _safety_gates(spec: EvaluationSpec, status: EvaluationStatus, candidates: Sequence[str]) -> list[SafetyGateResult]:
    scores = [] if status.safety is None else status.safety.results
    by_rules = spec.safety is None or spec.safety.classifier is None
    return evaluate_safety_gates(spec.safety_gates, candidates, scores, by_rules=by_rules)


def _described(gates: Sequence[GateResult | SafetyGateResult]) -> str:
    return "; ".join(f"{gate.candidate} by {_what(gate)}: {gate.message}" for gate in gates)


def _what(gate: GateResult | SafetyGateResult) -> str:
    if isinstance(gate, GateResult):
        return f"{gate.grader}{_where(gate)}"
    return " of ".join([gate.measure, *(one for one in (gate.converter, gate.category) if one is not None)])


def _where(gate: GateResult) -> str:
    return "" if gate.slice is None else f" where {gate.slice.by} is {gate.slice.value!r}"


def _warnings(spec: EvaluationSpec, status: EvaluationStatus, best: Sequence[BestCheckpoint]) -> list[str]:
    """The warnings of the Pod, and those about the current gates."""
    examples = {score.grader: score.examples for score in sorted(status.results, key=lambda score: score.examples)}
    kept = [warning for warning in status.warnings if not warning.startswith((TOO_FEW_EXAMPLES, CHOSEN_BY_SCORE))]
    of_gates = [*too_few_examples(spec.gates, examples, status.slices), *chosen_by_score(best, status, spec.gates)]
    return [*kept, *of_gates][:MOST_WARNINGS]


def _budget_message(status: EvaluationStatus) -> str:
    first = next(score for score in status.results if score.over_budget)
    outputs = (first.passed or 0) + (first.failed or 0) + (first.errored or 0)
    return (
        f"spec.budget was used up: {first.over_budget} of {outputs} outputs of {first.candidate!r} are not graded by "
        f"{first.grader!r}. Raise spec.budget and change spec.runId; what has been answered is kept, and costs nothing."
    )
