"""Means of scores that come in clusters: several questions on one document, several answers to one ticket."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from finetune_grading.statistics.intervals import Estimate, mean_of, standard_deviation, student_quantile


@dataclass(frozen=True)
class Clustering:
    """How much the clusters of a sample leave open."""

    clusters: int
    standard_error: float
    design_effect: float
    """The variance of the mean, over what it were if every score stood for itself; so many scores are worth one."""


def cluster(values: Sequence[float], labels: Sequence[Hashable]) -> Clustering:
    """The standard error of a mean whose scores are alike within their clusters.

    E. Miller, "Adding Error Bars to Evals" (arXiv 2411.00640): the root of the sum, over the clusters, of the squared
    sum of their deviations, over n; times C/(C-1), as in Stata and in G. MacKinnon and H. White (1985), because the
    deviations are from the sample's own mean. Raises ValueError for fewer than two clusters.
    """
    mean = mean_of(values)
    sums: dict[Hashable, float] = {}
    for value, label in zip(values, labels, strict=True):
        sums[label] = sums.get(label, 0.0) + value - mean
    count = len(sums)
    if count < 2:
        raise ValueError("fewer than two clusters")
    variance = math.fsum(total**2 for total in sums.values()) / len(values) ** 2 * count / (count - 1)
    alone = standard_deviation(values) ** 2 / len(values)
    return Clustering(count, math.sqrt(variance), variance / alone if alone else 1.0)


def widened(
    estimate: Estimate, values: Sequence[float], labels: Sequence[Hashable], *, least: float, most: float
) -> Estimate:
    """The estimate with Student's interval by clusters, C - 1 degrees of freedom, where that is the wider one.

    Clusters that seem to differ less than chance would have it make no interval narrower. Where they hardly differ at
    all, the few clusters of a sample may have missed those that do: then the interval is adjusted, too. Of a single
    cluster nothing is known of others: the whole scale is left open.
    """
    if len(set(labels)) < 2:
        return Estimate(estimate.mean, least, most)
    found = cluster(values, labels)
    half = student_quantile(found.clusters - 1) * found.standard_error
    low, high = estimate.mean - half, estimate.mean + half
    if found.design_effect < 1 or _most_are_alike(values, labels):
        centre, half = _adjusted(values, labels, least, most)
        low, high = min(low, centre - half), max(high, centre + half)
    return Estimate(estimate.mean, low=max(least, min(estimate.low, low)), high=min(most, max(estimate.high, high)))


def _most_are_alike(values: Sequence[float], labels: Sequence[Hashable]) -> bool:
    """Whether more than half of the clusters have the same mean, so that the few others make the standard error; or
    there are but two."""
    by_label: dict[Hashable, list[float]] = {}
    for value, label in zip(values, labels, strict=True):
        by_label.setdefault(label, []).append(value)
    means = Counter(round(mean_of(of_label), 9) for of_label in by_label.values())
    return len(by_label) == 2 or 2 * means.most_common(1)[0][1] > len(by_label)


def _adjusted(values: Sequence[float], labels: Sequence[Hashable], least: float, most: float) -> tuple[float, float]:
    """The centre and half the width of Student's interval with one more cluster at each end of the scale.

    As adjusted_student has it for scores. They are as large as the cluster of a score is on average, so that a single
    large cluster is not taken for many.
    """
    size = math.ceil(sum(count**2 for count in Counter(labels).values()) / len(values))
    with_ends = [*values, *[least] * size, *[most] * size]
    # Pairs: no label of the sample is one.
    of_ends = [*((True, label) for label in labels), *[(False, least)] * size, *[(False, most)] * size]
    found = cluster(with_ends, of_ends)
    return mean_of(with_ends), student_quantile(found.clusters - 1) * found.standard_error
