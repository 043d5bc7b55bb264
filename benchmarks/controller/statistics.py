"""Percentiles and counts, as they are reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.controller.audit import Request


@dataclass(frozen=True)
class Distribution:
    """Seconds."""

    p50: float
    p90: float
    p99: float
    maximum: float


def distribution(values: Sequence[float]) -> Distribution:
    """Percentiles by the nearest-rank method: each is a value that was measured."""
    ordered = sorted(values)
    return Distribution(*(_rank(ordered, percent) for percent in (50, 90, 99, 100)))


def per_job(requests: Iterable[Request], jobs: int) -> dict[str, float]:
    """How often each verb was used on each resource for a job, the most frequent first; long watches don't count."""
    counted = Counter(f"{one.verb} {one.resource}" for one in requests if one.verb != "watch")
    return {name: count / jobs for name, count in counted.most_common() if not name.endswith("leases")}


def _rank(ordered: Sequence[float], percent: int) -> float:
    # Nearest rank: the smallest value with at least so many percent at or below it.
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
