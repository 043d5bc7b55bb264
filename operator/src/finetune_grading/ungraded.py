"""Outputs that count as 0 because a grader could not grade them, and might have had any score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune_api.evaluation import BASELINE, EvaluationSpec, EvaluationStatus, SliceScore
from finetune_grading.scores import OF_THE_OUTPUT
from finetune_grading.statistics.intervals import Estimate, wilson


@dataclass(frozen=True)
class Ungraded:
    """Those of one model by one grader."""

    outputs: int
    share: Estimate
    """By how much the mean score would rise at most if all of them had 1."""


def ungraded_outputs(spec: EvaluationSpec, status: EvaluationStatus) -> dict[tuple[str, str], Ungraded]:
    """By model and grader; none where Errored outputs don't count, or end the run.

    What the baseline's outputs lack is no question left open: a model that writes no JSON where JSON is asked for is
    wrong, and the gain over it real.
    """
    if spec.on_error != "Zero":
        return {}
    lacking: dict[tuple[str, str], int] = {}
    for errors in status.errors:
        if errors.candidate == BASELINE and errors.code in OF_THE_OUTPUT:
            key = (errors.candidate, errors.grader)
            lacking[key] = lacking.get(key, 0) + errors.count
    found: dict[tuple[str, str], Ungraded] = {}
    for score in status.results:
        key = (score.candidate, score.grader)
        outputs = (score.errored or 0) - lacking.get(key, 0)
        if outputs > 0 and score.examples > 0:
            found[key] = Ungraded(outputs, _share(spec, score.examples, outputs))
    return found


def ungraded_in_slice(spec: EvaluationSpec, score: SliceScore, *, of_baseline: bool) -> Ungraded | None:
    """Those of the candidate, or of the baseline, in one slice."""
    outputs = (score.baseline_errored if of_baseline else score.errored) or 0
    if spec.on_error != "Zero" or outputs <= 0 or score.examples <= 0:
        return None
    return Ungraded(outputs, _share(spec, score.examples, outputs))


def _share(spec: EvaluationSpec, examples: int, outputs: int) -> Estimate:
    """In a mean, an output has its share of the example; otherwise one may decide over all of it."""
    per_example = spec.generation.samples_per_example if spec.generation.reducer == "Mean" else 1
    found = wilson(min(examples, math.ceil(outputs / per_example)), examples)
    return Estimate(min(1.0, outputs / per_example / examples), found.low, found.high)
