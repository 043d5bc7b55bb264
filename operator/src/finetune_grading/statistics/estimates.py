"""The mean of scores, and the gain of one model over another on the same examples."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from finetune_grading.statistics.clusters import widened
from finetune_grading.statistics.intervals import Estimate, adjusted_student, mcnemar, newcombe, wilson
from finetune_grading.statistics.power import minimum_detectable_difference


@dataclass(frozen=True)
class Difference:
    """A gain over a baseline."""

    estimate: Estimate
    p_value: float | None
    """McNemar's exact, where every score is 0 or 1 and each stands for itself."""
    minimum_detectable: float
    """The least true gain that so many examples show four times out of five."""


def estimate(scores: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """The mean of scores from 0 to 1: Wilson's interval where every score is 0 or 1, else Student's, adjusted.

    `clusters`: the label of each score; the interval is widened where scores of one label are alike. Raises ValueError
    for an empty sample.
    """
    if not scores:
        raise ValueError("there is no score")
    if _is_binary(scores):
        found = wilson(round(math.fsum(scores)), len(scores))
    else:
        found = adjusted_student(scores, least=0.0, most=1.0)
    return found if clusters is None else widened(found, scores, clusters, least=0.0, most=1.0)


def estimate_difference(
    scores: Sequence[float], baseline: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Difference:
    """The mean gain over the baseline on the same examples, in the same order, from scores from 0 to 1.

    Newcombe's interval where every score is 0 or 1, else Student's of the differences, adjusted. Raises ValueError when
    the lengths differ, or are 0.
    """
    pairs = list(zip(scores, baseline, strict=True))
    if not pairs:
        raise ValueError("there is no score")
    differences = [score - before for score, before in pairs]
    p_value = None
    if _is_binary(scores) and _is_binary(baseline):
        only_first, only_second = pairs.count((1, 0)), pairs.count((0, 1))
        found = newcombe(pairs.count((1, 1)), only_first, only_second, pairs.count((0, 0)))
        p_value = mcnemar(only_first, only_second) if clusters is None else None
    else:
        found = adjusted_student(differences, least=-1.0, most=1.0)
    if clusters is not None:
        found = widened(found, differences, clusters, least=-1.0, most=1.0)
    return Difference(found, p_value, minimum_detectable_difference(found))


def _is_binary(scores: Sequence[float]) -> bool:
    return all(score in (0, 1) for score in scores)
