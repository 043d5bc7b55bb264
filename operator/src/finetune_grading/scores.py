"""From grades to scores: what counts, what was passed, and what an interval leaves open."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from finetune_api.evaluation import BASELINE, GradingErrors, OnError, Reducer, Score
from finetune_api.graders import GraderErrorCode
from finetune_api.pod_contracts.termination_message import SCORE_DIGITS
from finetune_grading.grade import ROUNDING, Grade, GradeError, Scored
from finetune_grading.statistics.estimates import estimate, estimate_difference
from finetune_grading.statistics.intervals import Estimate
from finetune_grading.statistics.reducers import OF_PASSED, REDUCERS

OF_THE_OUTPUT = frozenset({GraderErrorCode.SAMPLE_PARSE_ERROR, GraderErrorCode.INVALID_VARIABLE_ERROR})
"""What an output lacks; the fields of an example have been checked before."""


@dataclass(frozen=True)
class Examples:
    """The examples that were graded, `samples` outputs of each, one after another."""

    lines: Sequence[int]
    """Of the dataset, by example."""
    clusters: Sequence[Hashable] | None = None
    """By example; None: each stands for itself."""
    samples: int = 1


@dataclass(frozen=True)
class Counting:
    """What a run makes of errors and of several samples."""

    on_error: OnError = "Zero"
    max_errored_percent: float = 5
    reducer: Reducer = "Mean"


_ROUNDING = 1e-9
Graded = Mapping[str, Mapping[str, Sequence[Grade]]]
"""By model and grader: the grade of each output."""
_HEALED = Grade.of(Scored(1.0), 1.0)
Thresholds = Mapping[str, float]
"""passThreshold by grader."""


def grading_failure(grades: Graded, examples: Examples, counting: Counting) -> str | None:
    """Why the scores would say little: too many outputs could not be graded; None when they are worth reading.

    What the baseline's outputs lack is no fault: a model that was not tuned to write JSON often doesn't. What the
    budget left ungraded is none either: it leaves the gates open.
    """
    for model, of_model in grades.items():
        for grader, of_grader in of_model.items():
            errors = [(at, grade.error) for at, grade in enumerate(of_grader) if grade.error is not None]
            faults = [one for one in errors if not _is_expected(one[1], model)]
            share = 100 * len(faults) / len(of_grader)
            if share > counting.max_errored_percent:
                reason = f"{share:.4g} %; maxErroredPercent is {counting.max_errored_percent:.4g}"
            elif faults and counting.on_error == "Fail":
                reason = "onError is Fail"
            elif len(errors) == len(of_grader) and counting.on_error == "Exclude":
                reason, faults = "none is left, and onError is Exclude", errors
            else:
                continue
            return _failure(model, grader, faults, len(of_grader), examples, reason)
    return None


def may_heal(grades: Graded, examples: Examples, counting: Counting) -> bool:
    """Whether a grading failure would be none if what may pass had passed: if APIs had answered what they did not."""
    healed = {
        model: {
            grader: [_HEALED if grade.error is not None and grade.error.passing else grade for grade in of_grader]
            for grader, of_grader in of_model.items()
        }
        for model, of_model in grades.items()
    }
    return grading_failure(healed, examples, counting) is None


def grading_errors(grades: Graded, examples: Examples, most: int) -> list[GradingErrors]:
    """How often which error kept which grader from grading, the most frequent first."""
    found: list[GradingErrors] = []
    for model, of_model in grades.items():
        for grader, of_grader in of_model.items():
            lines: dict[GraderErrorCode, list[int]] = {}
            for at, grade in enumerate(of_grader):
                if grade.error is not None:
                    lines.setdefault(grade.error.code, []).append(examples.lines[at // examples.samples])
            found += [
                GradingErrors(candidate=model, grader=grader, code=code, count=len(of_code), first_line=of_code[0])
                for code, of_code in lines.items()
            ]
    return sorted(found, key=lambda errors: -errors.count)[:most]


def scores_of(grades: Graded, thresholds: Thresholds, examples: Examples, counting: Counting) -> list[Score]:
    """The mean scores, with the gain over the baseline for every other model if there is a baseline.

    None of a model and grader of which no output counts. Rounded here, so that the gate, the status, the report and a
    person all see the same number.
    """
    counted = {
        (model, grader): _by_example(of_grader, thresholds[grader], examples, counting)
        for model, of_model in grades.items()
        for grader, of_grader in of_model.items()
    }
    return [
        _score(
            model,
            grader,
            grades[model][grader],
            scores,
            None if model == BASELINE else counted.get((BASELINE, grader)),
            examples.clusters,
        )
        for (model, grader), scores in counted.items()
        if any(score is not None for score in scores)
    ]


def _by_example(
    grades: Sequence[Grade], threshold: float, examples: Examples, counting: Counting
) -> list[float | None]:
    """One score for each example; None where it does not count.

    Reducers that count what passes count an Errored output as one that doesn't, whatever the threshold and onError.
    """
    reduce = REDUCERS[counting.reducer]
    of_error = None if counting.on_error == "Exclude" else 0.0
    reduced_error = -math.inf if counting.reducer in OF_PASSED else of_error
    found: list[float | None] = []
    for start in range(0, len(grades), examples.samples):
        graded = [grade.score for grade in grades[start : start + examples.samples]]
        if examples.samples == 1:
            found.append(of_error if graded[0] is None else graded[0])
        elif of_error is None and all(score is None for score in graded):
            found.append(None)
        else:
            scores = [reduced_error if score is None else score for score in graded]
            found.append(reduce([score for score in scores if score is not None], threshold))
    return found


def _score(
    model: str,
    grader: str,
    grades: Sequence[Grade],
    scores: Sequence[float | None],
    baseline: Sequence[float | None] | None,
    clusters: Sequence[Hashable] | None,
) -> Score:
    kept = [(at, score) for at, score in enumerate(scores) if score is not None]
    mean = estimate([score for _, score in kept], clusters and [clusters[at] for at, _ in kept])
    low, high = rounded_interval(mean)
    verdicts = [grade.verdict for grade in grades]
    over_budget = sum(
        grade.error is not None and grade.error.code is GraderErrorCode.BUDGET_EXCEEDED for grade in grades
    )
    score = Score(
        candidate=model,
        grader=grader,
        score=_rounded(mean.mean),
        low=low,
        high=high,
        examples=len(kept),
        passed=verdicts.count("Passed"),
        failed=verdicts.count("Failed"),
        errored=verdicts.count("Errored"),
        over_budget=over_budget or None,
    )
    pairs = [(at, one, before) for at, one in kept if baseline is not None and (before := baseline[at]) is not None]
    if not pairs:
        return score
    gain = estimate_difference(
        [one for _, one, _ in pairs], [before for *_, before in pairs], clusters and [clusters[at] for at, *_ in pairs]
    )
    gain_low, gain_high = rounded_interval(gain.estimate)
    return score.model_copy(
        update={
            "delta": _rounded(gain.estimate.mean),
            "delta_low": gain_low,
            "delta_high": gain_high,
            "p_value": None if gain.p_value is None else float(f"{gain.p_value:.3g}"),  # never 0
            "minimum_detectable_delta": _rounded(gain.minimum_detectable),
        }
    )


def _is_expected(error: GradeError, model: str) -> bool:
    return error.code is GraderErrorCode.BUDGET_EXCEEDED or (model == BASELINE and error.code in OF_THE_OUTPUT)


def _failure(
    model: str, grader: str, errors: Sequence[tuple[int, GradeError]], total: int, examples: Examples, reason: str
) -> str:
    at, error = errors[0]
    return (
        f"Grader {grader!r} could not grade {len(errors)} of {total} outputs of {model!r} ({reason}). The first is the "
        f"output for line {examples.lines[at // examples.samples]}: {error.code}: {error.details}"
    )


def rounded_interval(found: Estimate) -> tuple[float, float]:
    """Both ends, rounded away from each other: no gate passes by rounding, and no interval is a point."""
    unit = 10**SCORE_DIGITS
    # 0.57 * 10000 is 5699.999999999999 to a computer.
    return math.floor(found.low * unit + _ROUNDING) / unit, math.ceil(found.high * unit - _ROUNDING) / unit


def _rounded(number: float) -> float:
    """To four digits; only what is -1, 0 or 1 becomes that: one success in a million attacks is not none."""
    near = round(number, SCORE_DIGITS)
    if near not in (-1.0, 0.0, 1.0) or abs(number - near) < ROUNDING:
        return near
    return near + math.copysign(10**-SCORE_DIGITS, number - near)
