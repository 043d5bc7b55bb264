"""Means of scores that come in clusters: several questions on one document, several answers to one ticket."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from finetune_grading.statistics.intervals import Estimate, mean_of, standard_deviation, student_quantile

FEW_CLUSTERS = 30
"""With fewer, the standard error itself is uncertain."""


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

    Clusters that seem to differ less than chance would have it make no interval narrower. Of a single cluster nothing
    is known of others: the whole scale is left open.
    """
    if len(set(labels)) < 2:
        return Estimate(estimate.mean, least, most)
    found = cluster(values, labels)
    half = student_quantile(found.clusters - 1) * found.standard_error
    return Estimate(
        estimate.mean,
        low=max(least, min(estimate.low, estimate.mean - half)),
        high=min(most, max(estimate.high, estimate.mean + half)),
    )
