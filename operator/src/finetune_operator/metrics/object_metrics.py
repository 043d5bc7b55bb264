"""Prometheus metrics of the objects of every kind, from what reconciliations found.

Objects are counted when they change, so that a scrape costs no more the more objects there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.conditions import ConditionType
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.operator_metrics import Declared, declare

Labels = TypeVar("Labels", bound=tuple[str, ...])

_STALLED = declare(
    "finetune_stalled_objects",
    "gauge",
    "Objects whose condition Stalled is True, by reason: they can't proceed unless something changes.",
    ["kind", "namespace", "reason"],
)


class ObjectMetrics(Collector):
    """Which objects there are, and which of them are stalled."""

    def __init__(self) -> None:
        self._labels: dict[ObjectKey, tuple[str, str, str] | None] = {}
        """How an object is counted as stalled; None: it is not."""
        self._stalled: Counter[tuple[str, str, str]] = Counter()

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        """A reconciliation of the object succeeded: its status is `after`."""
        self.gone(key)
        reasons = [one.reason for one in after.conditions if one.type == ConditionType.STALLED and one.status == "True"]
        labels = self._labels[key] = (key.kind, key.namespace, reasons[0]) if reasons else None
        if labels is not None:
            self._stalled[labels] += 1

    def gone(self, key: ObjectKey) -> None:
        """The object does not exist any more."""
        if (labels := self._labels.pop(key, None)) is not None:
            decrement(self._stalled, labels)

    def objects(self, kind: str) -> set[ObjectKey]:
        """The objects of a kind that are counted."""
        return {key for key in self._labels if key.kind == kind}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every family."""
        stalled = _STALLED.gauge()
        for labels, count in self._stalled.items():
            stalled.add_metric(labels, count)
        yield stalled


class PhaseCounts:
    """How many objects of a kind are in each phase, by namespace."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._phase_of: dict[ObjectKey, tuple[str, str]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def written(self, key: ObjectKey, phase: str | None) -> None:
        """The object is in this phase now."""
        self.gone(key)
        if phase:
            labels = self._phase_of[key] = (key.namespace, phase)
            self._counts[labels] += 1

    def gone(self, key: ObjectKey) -> None:
        """The object does not exist any more."""
        if (labels := self._phase_of.pop(key, None)) is not None:
            decrement(self._counts, labels)

    def gauge(self) -> GaugeMetricFamily:
        """The family."""
        gauge = self._declared.gauge()
        for labels, count in self._counts.items():
            gauge.add_metric(labels, count)
        return gauge


def decrement(counts: Counter[Labels], labels: Labels) -> None:
    """One less; what is zero vanishes."""
    counts[labels] -= 1
    if counts[labels] <= 0:
        del counts[labels]
