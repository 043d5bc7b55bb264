"""Whether scores pass the gates, fail them, or are too few to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from finetune_api.evaluation import (
    BASELINE,
    CalibrationStatus,
    Gate,
    GatedSlice,
    GatedSliceStatus,
    GateResult,
    Score,
    SliceScore,
)
from finetune_grading.grade import reaches
from finetune_grading.statistics.power import examples_to_decide, examples_to_detect
from finetune_grading.ungraded import Ungraded

Verdict = Literal["Passed", "Failed", "Inconclusive"]
InSlice = Callable[[SliceScore, bool], Ungraded | None]
"""The outputs in a slice that could not be graded: the candidate's, or with True the baseline's."""
TOO_FEW_EXAMPLES = "TooFewExamples"
_DISCORDANCE = 0.1
_MEASURED = {None: "score", "Agreement": "agreement with people", "Kappa": "kappa with people"}


@dataclass(frozen=True)
class _Measured:
    """A score, or the gain over the baseline, with its interval if it is known."""

    what: str
    mean: float
    low: float | None
    high: float | None
    form: str
    """The format specification of its numbers."""
    least: float
    """The lower end of its scale; the upper one is 1."""

    def __str__(self) -> str:
        text = f"{self.what} {self.mean:{self.form}}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{self.low:{self.form}}, {self.high:{self.form}}]"


def evaluate_gates(
    gates: Sequence[Gate],
    candidates: Sequence[str],
    scores: Sequence[Score],
    ungraded: Mapping[tuple[str, str], Ungraded] | None = None,
    slices: Sequence[SliceScore] = (),
    in_slice: InSlice = lambda score, of_baseline: None,
    gated_slices: Sequence[GatedSliceStatus] | None = None,
    calibrations: Sequence[CalibrationStatus] = (),
) -> list[GateResult]:
    """The result of every gate for every candidate of the spec; without a score, a gate fails.

    `ungraded`: by model and grader, the outputs that could not be graded. The scores count them as 0; to let no gate
    pass because of them, a maximum counts the candidate's as 1, and a minimumDelta the baseline's. `slices`: the scores
    for gates on a slice; `in_slice`: the ungraded outputs in a slice; `gated_slices`: the slices that had a gate during
    the run, with their numbers of examples; `calibrations`: for gates on a calibration.
    """
    of_slices = {(one.by, one.value, one.candidate, one.grader): one for one in slices}
    by_key = {(score.candidate, score.grader): score for score in scores}
    calibrated = {one.grader: one for one in calibrations}

    def result(gate: Gate, candidate: str) -> GateResult:
        if gate.calibration is not None:
            return _of_calibration(gate, candidate, calibrated.get(gate.scored_by))
        if gate.slice is not None:
            in_status = of_slices.get((gate.slice.by, gate.slice.value, candidate, gate.scored_by))
            if in_status is None:
                return _without_score(gate, candidate, gated_slices)
            return _of_slice(gate, candidate, in_status, in_slice)
        score, baseline = by_key.get((candidate, gate.scored_by)), by_key.get((BASELINE, gate.scored_by))
        counted_as_one = (ungraded or {}).get((candidate if _is_maximum(gate) else BASELINE, gate.scored_by))
        over_budget = _over_budget(gate, score, baseline)
        return _gate_result(gate, candidate, score, _examples(gate, score, baseline), counted_as_one, over_budget)

    return [result(gate, candidate) for gate in gates for candidate in candidates]


def too_few_examples(
    gates: Sequence[Gate], examples: Mapping[str, int], slices: Sequence[SliceScore] = ()
) -> list[str]:
    """A warning for each gate on a difference that is too small to be detected with so many examples.

    With examples_to_detect(0.02, 0.1) examples, a difference of 0.02 is detected with a power of 80 % if exactly one of
    the models is right on 10 % of them. `examples`: by grader and benchmark. Slices of unknown size are left out.
    """
    found = []
    of_slices = {(one.by, one.value): one.examples for one in slices}
    for at, gate in enumerate(gates):
        demanded = gate.maximum_delta if gate.minimum_delta is None else gate.minimum_delta
        if not demanded or gate.decision == "PointEstimate":
            continue
        there = examples.get(gate.scored_by) if gate.slice is None else of_slices.get((gate.slice.by, gate.slice.value))
        needed = examples_to_detect(abs(demanded), _DISCORDANCE)
        if there is not None and there < needed:
            found.append(
                f"{TOO_FEW_EXAMPLES}: spec.gates[{at}] is about a difference of {abs(demanded):g} by "
                f"{gate.scored_by!r}, which {there} examples can hardly detect: about {needed} are needed if "
                f"the models differ in {_DISCORDANCE:.0%} of them. Evaluate on more examples, or demand less."
            )
    return found


def summary(grader: str, scores: Sequence[Score], name: str | None = None) -> str:
    """One candidate, or the first one, against the baseline by one grader, as `kubectl get` shows it."""
    mine = [score for score in scores if score.grader == grader]
    candidates = [score for score in mine if score.candidate != BASELINE]
    candidate = next((score for score in candidates if name in (None, score.candidate)), None)
    baseline = next((score for score in mine if score.candidate == BASELINE), None)
    if candidate is None:
        return ""
    text = f"{grader} {candidate.score:.3f} [{candidate.low:.3f}, {candidate.high:.3f}]"
    if name is not None:
        text = f"{name}: {text}"
    return f"{text} vs {baseline.score:.3f} [{baseline.low:.3f}, {baseline.high:.3f}]" if baseline else text


def _without_score(gate: Gate, candidate: str, gated: Sequence[GatedSliceStatus] | None) -> GateResult:
    """Inconclusive: there is no evidence either way."""
    return GateResult(
        candidate=candidate,
        grader=gate.scored_by,
        slice=gate.slice,
        verdict="Inconclusive",
        message=_why_no_score(gate, gated),
    )


def _why_no_score(gate: Gate, gated: Sequence[GatedSliceStatus] | None) -> str:
    """Why the slice has no score, and what to do about it."""
    if gated is None:
        return (
            "status.slices has no score of this slice, and the run's report does not say why; report.json has the "
            "scores of all slices. If the gate is newer than the run, change spec.runId."
        )
    key = None if gate.slice is None else GatedSlice(by=gate.slice.by, value=gate.slice.value, grader=gate.scored_by)
    asked = next((one for one in gated if one.about == key), None)
    if asked is None:
        return "the gate is newer than the run, which has reported no score of this slice: change spec.runId."
    if asked.examples == 0:
        return "the dataset has no example of this slice. Correct `value`."
    if asked.left_out:
        return (
            f"the Pod's report had no room for the score of this slice of {asked.examples} examples; report.json has "
            "it. Use fewer graders, candidates, or gates with a slice, and change spec.runId."
        )
    return f"none of the {asked.examples} examples of this slice counts: their outputs could not be graded."


def _of_calibration(gate: Gate, candidate: str, found: CalibrationStatus | None) -> GateResult:
    """The result of a gate on the grader's calibration, the same for every candidate."""
    result = GateResult(
        candidate=candidate,
        grader=gate.scored_by,
        calibration=gate.calibration,
        message="the Pod's report had no room for the calibration; report.json has it. Use fewer graders or slices, "
        "and change spec.runId.",
    )
    if found is None:
        return result
    mean, low, high = (
        (found.kappa, found.kappa_low, found.kappa_high)
        if gate.calibration == "Kappa"
        else (found.agreement, found.agreement_low, found.agreement_high)
    )
    score = Score(candidate=candidate, grader=gate.scored_by, score=mean, low=low, high=high, examples=found.examples)
    judged = _gate_result(gate, candidate, score, found.examples, None, found.over_budget or 0)
    return judged.model_copy(update={"calibration": gate.calibration})


def _of_slice(gate: Gate, candidate: str, found: SliceScore, in_slice: InSlice) -> GateResult:
    """The result of a gate on one slice."""
    score = Score(**{name: getattr(found, name) for name in SliceScore.model_fields if name in Score.model_fields})
    ungraded = in_slice(found, not _is_maximum(gate))
    return _gate_result(gate, candidate, score, found.examples, ungraded, found.over_budget or 0)


def _gate_result(
    gate: Gate, candidate: str, score: Score | None, examples: int, ungraded: Ungraded | None, over_budget: int
) -> GateResult:
    verdict, message = _judge(gate, score, examples, ungraded)
    if over_budget and score is not None:
        verdict, message = "Inconclusive", f"{message}; {over_budget} outputs are not graded: spec.budget was used up"
    return GateResult(candidate=candidate, grader=gate.scored_by, slice=gate.slice, verdict=verdict, message=message)


def _judge(gate: Gate, score: Score | None, examples: int, ungraded: Ungraded | None) -> tuple[Verdict, str]:
    if score is None:
        return "Failed", "there is no score by this grader"
    is_maximum, by_mean = _is_maximum(gate), gate.decision == "PointEstimate"
    of_score, of_gain = (gate.maximum, gate.maximum_delta) if is_maximum else (gate.minimum, gate.minimum_delta)
    if of_score is not None:
        least = -1.0 if gate.calibration == "Kappa" else 0.0
        demanded, measured = (
            of_score,
            _Measured(_MEASURED[gate.calibration], score.score, score.low, score.high, ".3f", least),
        )
    elif score.delta is None:
        return "Failed", "there is no baseline to compare with"
    else:
        demanded = of_gain or 0.0
        measured = _Measured("gain over the baseline", score.delta, score.delta_low, score.delta_high, "+.3f", -1.0)
    message = f"{measured}, {'at most' if is_maximum else 'at least'} {_written(demanded, measured.form)} required"
    verdict = _verdict(measured, demanded, is_maximum, by_mean)
    if ungraded is not None and gate.minimum is None:
        at_worst = _at_worst(measured, ungraded, is_maximum)
        of_worst, whose = _verdict(at_worst, demanded, is_maximum, by_mean), "" if is_maximum else " of the baseline"
        if of_worst != verdict:
            outputs = f"{ungraded.outputs} outputs{whose} that could not be graded"
            return of_worst, f"{message}; {at_worst} if the {outputs} had 1"
    if verdict == "Inconclusive":
        message = f"{message}: {_what_would_tell(measured, demanded, examples)}"
    return verdict, message


def _over_budget(gate: Gate, score: Score | None, baseline: Score | None) -> int:
    """How many outputs the budget left ungraded; for a gate on a gain, of both models."""
    counted = [score, baseline] if gate.minimum_delta is not None or gate.maximum_delta is not None else [score]
    return sum(one.over_budget or 0 for one in counted if one is not None)


def _examples(gate: Gate, score: Score | None, baseline: Score | None) -> int:
    """How many examples were scored; for a gain, the smaller number of the two models."""
    if score is None:
        return 0
    of_gain = gate.minimum_delta is not None or gate.maximum_delta is not None
    return score.examples if baseline is None or not of_gain else min(score.examples, baseline.examples)


def _is_maximum(gate: Gate) -> bool:
    return gate.maximum is not None or gate.maximum_delta is not None


def _at_worst(measured: _Measured, ungraded: Ungraded, is_maximum: bool) -> _Measured:
    """The measurement with ungraded outputs counted as 1 in whichever model's favour makes the gate harder to pass.

    Only the end of the interval on that side moves: they may also deserve 0.
    """
    share = ungraded.share
    if is_maximum:
        high = None if measured.high is None else min(1.0, measured.high + share.high)
        return replace(measured, mean=min(1.0, measured.mean + share.mean), high=high)
    low = None if measured.low is None else max(-1.0, measured.low - share.high)
    return replace(measured, mean=max(-1.0, measured.mean - share.mean), low=low)


def _verdict(measured: _Measured, demanded: float, is_maximum: bool, by_mean: bool) -> Verdict:
    """Passed if all of the interval meets the demand, Failed if none of it does."""
    low, high = (measured.mean, measured.mean) if by_mean else (measured.low, measured.high)
    if low is None or high is None:
        return "Inconclusive"
    least = measured.least
    if is_maximum:
        low, high, demanded, least = -high, -low, -demanded, -1.0
    if reaches(low, demanded, least=least):
        return "Passed"
    return "Inconclusive" if reaches(high, demanded, least=least) else "Failed"


def _written(threshold: float, form: str) -> str:
    """As the measured numbers are, unless these digits would be another threshold."""
    text = f"{threshold:{form}}"
    return text if float(text) == threshold else f"{threshold:{'+' if form.startswith('+') else ''}.6g}"


def _what_would_tell(measured: _Measured, demanded: float, examples: int) -> str:
    if measured.low is None or measured.high is None:
        return "its confidence interval is not known; evaluate again"
    more = examples_to_decide(measured.mean, measured.low, measured.high, demanded, examples)
    if more is None:
        return "it equals the threshold, so more examples would not decide; lower the threshold"
    return f"{examples} examples are too few to decide; about {more} more are needed"
