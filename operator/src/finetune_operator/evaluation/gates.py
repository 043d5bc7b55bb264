"""Whether scores pass the gates."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.evaluation import BASELINE, Gate, GateResult, Score

# A gain of 0.9 over 0.8 is 0.09999999999999998 to a computer.
_ROUNDING = 1e-9


def judge(gates: Sequence[Gate], candidates: Sequence[str], scores: Sequence[Score]) -> list[GateResult]:
    """Every gate on every candidate of the spec; a score that is missing fails its gate."""
    by_key = {(score.candidate, score.grader): score for score in scores}
    return [
        _gate_result(gate, candidate, by_key.get((candidate, gate.grader)))
        for gate in gates
        for candidate in candidates
    ]


def summary(grader: str, scores: Sequence[Score]) -> str:
    """The first candidate against the baseline by one grader, as `kubectl get` shows it."""
    mine = [score for score in scores if score.grader == grader]
    candidate = next((score for score in mine if score.candidate != BASELINE), None)
    baseline = next((score for score in mine if score.candidate == BASELINE), None)
    if candidate is None:
        return ""
    text = f"{grader} {candidate.score:.3f} [{candidate.low:.3f}, {candidate.high:.3f}]"
    return f"{text} vs {baseline.score:.3f} [{baseline.low:.3f}, {baseline.high:.3f}]" if baseline else text


def _gate_result(gate: Gate, candidate: str, score: Score | None) -> GateResult:
    if score is None:
        passed, message = False, "there is no score by this grader"
    elif gate.minimum is not None:
        passed = score.score >= gate.minimum - _ROUNDING
        message = f"score {score.score:.3f}, at least {gate.minimum:.3f} demanded"
    elif score.delta is None:
        passed, message = False, "there is no baseline to compare with"
    else:
        demanded = gate.minimum_delta or 0.0
        passed = score.delta >= demanded - _ROUNDING
        message = f"gain over the baseline {score.delta:+.3f}, at least {demanded:+.3f} demanded"
    return GateResult(candidate=candidate, grader=gate.grader, passed=passed, message=message)
