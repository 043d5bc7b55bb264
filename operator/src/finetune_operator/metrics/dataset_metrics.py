"""Prometheus metrics of datasets, from what reconciliations found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.dataset import DatasetStatus
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.object_metrics import PhaseCounts
from finetune_operator.metrics.operator_metrics import declare

_DATASETS = declare("finetune_datasets", "gauge", "Datasets by phase.", ["namespace", "phase"])
_TRIES = declare(
    "finetune_dataset_tries_failed_total", "counter", "Tries of datasets that failed, by reason.", ["reason"]
)


class DatasetMetrics(Collector):
    """Counts of the datasets by phase, and of their failed tries."""

    def __init__(self) -> None:
        self._phases = PhaseCounts(_DATASETS)
        self._failed: Counter[str] = Counter()

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        """A reconciliation of the dataset succeeded: its status was `before` and is `after`."""
        assert isinstance(before, DatasetStatus)
        assert isinstance(after, DatasetStatus)
        self.gone(key)
        self._phases.written(key, after.phase)
        failed = after.retries - (before.retries if before.run_number == after.run_number else 0)
        if failed > 0 and after.failure is not None:
            self._failed[after.failure.reason] += failed

    def gone(self, key: ObjectKey) -> None:
        """The dataset does not exist any more."""
        self._phases.gone(key)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every family."""
        yield self._phases.gauge()
        tries = _TRIES.counter()
        for reason, count in self._failed.items():
            tries.add_metric([reason], count)
        yield tries
