"""Checks of an evaluation's report against its spec.

A report decides what is served, and anyone who may exec into the Pod can write it: scores that the spec does not ask
for, or that are impossible, are rejected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import get_args

from finetune_api.evaluation import CalibrationStatus, OutputsStatus, Score, SliceScore
from finetune_api.evaluation.safety import Measure, SafetyScore
from finetune_api.model_usage import ModelUsage
from finetune_api.sources import is_below


def scores_refusal(
    scores: Collection[Score],
    report_uri: str | None,
    folder: str | None,
    models: Collection[str],
    graders: Collection[str],
) -> str | None:
    """Why the scores are rejected; None if they are valid."""
    if report_uri is not None and not is_below(report_uri, folder):
        return f"its reportUri is {report_uri!r}, which is outside the run's folder {folder}"
    keys = [(score.candidate, score.grader) for score in scores]
    strange = [key for key in keys if key[0] not in models or key[1] not in graders]
    if strange:
        return f"it has a score of {strange[0][0]!r} by {strange[0][1]!r}, which the spec does not have"
    if len(set(keys)) < len(keys):
        return "it has two scores of one model by one grader"
    impossible = next((score for score in scores if not _is_possible(score)), None)
    if impossible is not None:
        return (
            f"the numbers of {impossible.candidate!r} by {impossible.grader!r} are impossible: a score must be in its "
            "interval and from 0 to 1, a gain in its own and from -1 to 1, and a count at least 0"
        )
    return None


def outputs_refusal(outputs: Collection[OutputsStatus], models: Collection[str]) -> str | None:
    """Why the statistics of the models' outputs are rejected; None if they are valid."""
    if (twice := _first_repeated([one.candidate for one in outputs])) is not None:
        return f"it reports the outputs of {twice!r} twice"
    for one in outputs:
        if one.candidate not in models:
            return f"it names the candidate {one.candidate!r}, which is not in the spec"
        median, low, high = one.latency_milliseconds, one.latency_low_milliseconds, one.latency_high_milliseconds
        time = [number for number in (low, median, high) if number is not None]
        counts = (one.count, one.prompt_tokens, one.completion_tokens, one.cost, one.measurements)
        if not _in_order([0, *time]) or min(number for number in counts if number is not None) < 0:
            return f"the numbers of the outputs of {one.candidate!r} are impossible"
    return None


def usage_refusal(usage: Collection[ModelUsage]) -> str | None:
    """Why the usage is rejected: the API server refuses a list map with a repeated key."""
    twice = _first_repeated([one.model for one in usage])
    return None if twice is None else f"it reports the usage of the model {twice!r} twice"


def calibrations_refusal(calibrations: Collection[CalibrationStatus], graders: Collection[str]) -> str | None:
    """Why the calibrations are rejected; None if they are valid. `graders`: those with a calibration."""
    if (twice := _first_repeated([one.grader for one in calibrations])) is not None:
        return f"it has two calibrations of {twice!r}"
    for one in calibrations:
        if one.grader not in graders:
            return f"it has a calibration of {one.grader!r}, for which the spec has none"
        is_possible = (
            _in_order([0.0, one.agreement_low, one.agreement, one.agreement_high, 1.0])
            and _in_order([-1.0, one.kappa_low, one.kappa, one.kappa_high, 1.0])
            and _in_order([0.0, one.over_budget or 0, one.errored or 0, one.examples])
            and one.examples >= 1
        )
        if not is_possible:
            return f"the numbers of the calibration of {one.grader!r} are impossible"
    return None


def safety_refusal(scores: Collection[SafetyScore], models: Collection[str]) -> str | None:
    """Why the rates of attacks are rejected; None if they are valid. `models`: none if the spec has no safety."""
    keys = [(one.candidate, one.measure, one.category, one.converter) for one in scores]
    if len(set(keys)) < len(keys):
        return "it has two rates of one model by one measure, category and converter"
    for one in scores:
        if one.candidate not in models or one.measure not in get_args(Measure):
            return f"it has a rate {one.measure!r} of {one.candidate!r}, for which the spec does not ask"
        rise = [number for number in (one.delta_low, one.delta, one.delta_high) if number is not None]
        is_possible = (
            _in_order([0.0, one.low, one.rate, one.high, 1.0])
            and _in_order([-1.0, *rise, 1.0])
            and one.answers >= 1
            and min(one.counted, one.errored, one.incoherent) >= 0
            and one.counted + one.errored <= one.answers
        )
        if not is_possible:
            return f"the numbers of {one.measure} of {one.candidate!r} are impossible"
    return None


def slices_refusal(
    slices: Collection[SliceScore], candidates: Collection[str], graders: Collection[str], templates: Collection[str]
) -> str | None:
    """Why the scores of slices are rejected; None if they are valid."""
    for one in slices:
        if one.candidate not in candidates or one.grader not in graders or one.by not in templates:
            what = f"a score of {one.candidate!r} by {one.grader!r} on a slice by {one.by!r}"
            return f"it has {what}, which the spec does not have"
        gain = [number for number in (one.delta_low, one.delta, one.delta_high) if number is not None]
        if not (_in_order([0.0, one.low, one.score, one.high, 1.0]) and _in_order([-1.0, *gain, 1.0])):
            return f"the numbers of {one.candidate!r} by {one.grader!r} on a slice are impossible"
        if min(one.examples - 1, one.errored or 0, one.baseline_errored or 0, one.over_budget or 0) < 0:
            return f"a count of {one.candidate!r} by {one.grader!r} on a slice is impossible"
    return None


def _is_possible(score: Score) -> bool:
    """Whether the numbers of a score are within their ranges and in order; a delta may be missing."""
    gain = [number for number in (score.delta_low, score.delta, score.delta_high) if number is not None]
    counts = [number for number in (score.passed, score.failed, score.errored) if number is not None]
    return (
        _in_order([0.0, score.low, score.score, score.high, 1.0])
        and _in_order([-1.0, *gain, 1.0])
        and _in_order([0.0, 1.0 if score.p_value is None else score.p_value, 1.0])
        and (score.minimum_detectable_delta or 0.0) >= 0
        and score.examples >= 1
        and min(counts, default=0) >= 0
        and 0 <= (score.over_budget or 0) <= (score.errored or 0)
        and (len(counts) < 3 or sum(counts) >= score.examples)
    )


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for at, name in enumerate(names) if name in names[:at]), None)


def _in_order(numbers: Sequence[float]) -> bool:
    return all(one <= other for one, other in pairwise(numbers))
