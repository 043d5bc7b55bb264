"""Mode LearningCurve: which trials there are, and the sentence about what more data would bring. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from finetune_api.default_hyperparameters import DEFAULT_SEED
from finetune_api.finetunesweep import (
    CurvePoint,
    CurveStatus,
    FineTuneSweepSpec,
    LearningCurve,
    TrialStatus,
    Value,
)
from finetune_operator.finetunesweep.learning_curve.curve import (
    FEWEST_SIZES,
    LEAST_SPAN,
    Measured,
    error_increases,
    errors_by_size,
    fits_curve,
    variances,
)
from finetune_operator.finetunesweep.learning_curve.prediction import Gain, gain_of_doubling

PERCENT, SEED = "dataset.training.limit.percent", "hyperparameters.seed"
SURE = 0.9
LARGEST_SCORE = 1e9
"""That of a training that has diverged may be any number; no curve goes through it, and its square may be none."""
DECIMALS = 12
"""Less is rounding, and squares of numbers as small as there are would be 0."""
_OF_95, _OF_90 = 1.96, 1.645
"""Half the width of an interval in standard errors."""


def curve_values(spec: FineTuneSweepSpec) -> list[dict[str, Value]]:
    """The values of each trial: seed by seed, the largest size first, which takes longest."""
    curve, seed = spec.learning_curve or LearningCurve(), spec.template.spec.hyperparameters.seed
    first = DEFAULT_SEED if seed is None else seed
    sizes = sorted(set(curve.percents), reverse=True)
    return [{PERCENT: size, SEED: first + number} for number in range(curve.seeds) for size in sizes]


def learning_curve(spec: FineTuneSweepSpec, trials: Sequence[TrialStatus]) -> CurveStatus:
    """What the trials say of twice the largest number of examples."""
    measured = _measured(spec, trials)
    by_size, variance = errors_by_size(measured), variances(measured)
    if len(by_size) < FEWEST_SIZES:
        few = f"Only {len(by_size)} of at least {FEWEST_SIZES} sizes have scores that can be compared"
        return CurveStatus(message=f"{few}: cannot estimate the effect of more data.")
    if variance is None:
        few = f"{len(measured)} scores of {len(by_size)} sizes are too few to know how much seeds differ"
        return CurveStatus(message=f"{few}: cannot estimate the effect of more data. Run more seeds.")
    points = [_point(spec, size, errors, variance[size]) for size, errors in by_size.items()]
    smallest, largest = min(by_size), max(by_size)
    if largest < LEAST_SPAN * smallest:
        message = (
            f"The sizes lie too close together, {smallest:,} to {largest:,} training examples: cannot estimate the "
            "effect of more data. Let spec.learningCurve.percents begin at a quarter of the largest or less."
        )
        return CurveStatus(message=message, points=points)
    if error_increases(measured, variance):
        message = (
            "More examples made the model worse at some point, so the effect of further examples cannot be estimated."
        )
        return CurveStatus(message=message, points=points)
    if not fits_curve(measured):
        message = (
            "The scores do not follow a learning curve, which improves ever more slowly with more examples, so the "
            "effect of further examples cannot be estimated. Trainings that are too short to learn anything of the "
            "smallest parts may be the cause: leave these out of spec.learningCurve.percents, or train more epochs."
        )
        return CurveStatus(message=message, points=points)
    curve = spec.learning_curve or LearningCurve()
    gain = gain_of_doubling(measured, variance, curve.worthwhile_gain, curve.seeds)
    unlikely, likely = gain.probability <= 1 - SURE, gain.probability >= SURE
    return CurveStatus(
        verdict="WorthIt" if likely else "NotWorthIt" if unlikely else "CantTell",
        message=_sentence(spec, curve, max(by_size), gain),
        # The curve can't rise, so that its median gain is above 0 even where there is none.
        gain=_rounded(gain.gain) if likely else None,
        gain_low=_rounded(gain.low) if likely else None,
        gain_high=_rounded(gain.high),
        probability=_rounded(gain.probability),
        points=points,
    )


def _measured(spec: FineTuneSweepSpec, trials: Sequence[TrialStatus]) -> list[Measured]:
    # Of a small dataset, two percentages may be the same examples: with one seed that is one training, made twice.
    trainings = {
        (trial.examples, trial.values.get(SEED)): Measured(
            trial.examples,
            round(_flipped(spec, trial.score), DECIMALS),
            None if trial.low is None or trial.high is None else (trial.high - trial.low) / 2 / _OF_95,
        )
        for trial in trials
        if trial.score is not None and trial.examples is not None and _is_measured(trial)
    }
    return list(trainings.values())


def _is_measured(trial: TrialStatus) -> bool:
    return all(abs(one) <= LARGEST_SCORE for one in (trial.score, trial.low, trial.high) if one is not None)


def _flipped(spec: FineTuneSweepSpec, value: float) -> float:
    """An error as a score, and a score as an error: lower is better. Grades are at most 1."""
    return value if spec.sign > 0 else 1 - value


def _point(spec: FineTuneSweepSpec, size: int, errors: Sequence[float], variance: float) -> CurvePoint:
    score, margin = _flipped(spec, mean(errors)), _OF_90 * math.sqrt(variance / len(errors))
    return CurvePoint(
        examples=size,
        score=_rounded(score),
        low=_rounded(score - margin),
        high=_rounded(score + margin),
        trials=len(errors),
    )


def _sentence(spec: FineTuneSweepSpec, curve: LearningCurve, size: int, gain: Gain) -> str:
    """A gain only where there is one for sure: the curve can't rise, so that its median is above 0 by itself."""
    measured = spec.measured
    what = "the validation loss" if measured is None else f"the score from grader {measured.grader!r}"
    change = "improve" if measured is not None else "lower"
    wanted, means = f"worthwhileGain is {curve.worthwhile_gain:g}", f"mean of {curve.seeds} seeds"
    twice, high = f"{size:,} to {2 * size:,} training examples", f"{max(gain.high, 0.0):.3g}"
    if gain.probability >= SURE:
        numbers = f"by {gain.gain:.3g} (90 %, {means}: {gain.low:.3g} to {high})"
        return f"Twice the data, {twice}, would {change} {what} {numbers}: worth it ({wanted})."
    if gain.probability <= 1 - SURE:
        return f"Twice the data, {twice}, would {change} {what} by at most {high} ({means}): not worth it ({wanted})."
    chance = f"{curve.worthwhile_gain:g} or more has a probability of {gain.probability:.0%}"
    more = "seeds" if measured is None else "seeds, or more examples to evaluate,"
    return (
        f"Twice the data, {twice}, would {change} {what} by at most {high} ({means}), and {chance}: "
        f"inconclusive. Use more {more} to decide."
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
