"""Prometheus metrics of evaluations, from what reconciliations found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.evaluation import EvaluationStatus
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.object_metrics import PhaseCounts
from finetune_operator.metrics.operator_metrics import declare

_EVALUATION = ("namespace", "name")
_EVALUATIONS = declare("finetune_evaluations", "gauge", "Evaluations by phase.", ["namespace", "phase"])
_TRIES = declare(
    "finetune_evaluation_tries_failed_total", "counter", "Tries of evaluations that failed, by reason.", ["reason"]
)
_PERCENT = declare("finetune_evaluation_percent", "gauge", "Progress of a running evaluation, in percent.", _EVALUATION)
_REMAINING = declare(
    "finetune_evaluation_estimated_remaining_seconds",
    "gauge",
    "Estimated time until a running evaluation ends, in seconds.",
    _EVALUATION,
)
_OF_PROGRESS = ((_PERCENT, "percent"), (_REMAINING, "estimated_remaining_seconds"))


class EvaluationMetrics(Collector):
    """Counts of the evaluations by phase and of their failed tries, and the progress of those that run."""

    def __init__(self) -> None:
        self._phases = PhaseCounts(_EVALUATIONS)
        self._failed: Counter[str] = Counter()
        self._running: dict[ObjectKey, EvaluationStatus] = {}

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        """A reconciliation of the evaluation succeeded: its status was `before` and is `after`."""
        assert isinstance(before, EvaluationStatus)
        assert isinstance(after, EvaluationStatus)
        self.gone(key)
        self._phases.written(key, after.phase)
        if after.phase == "Evaluating":
            self._running[key] = after
        is_same_run = (before.run_id, before.start_time) == (after.run_id, after.start_time)
        failed = after.retries - (before.retries if is_same_run else 0)
        if failed > 0 and after.failure is not None:
            self._failed[after.failure.reason] += failed

    def gone(self, key: ObjectKey) -> None:
        """The evaluation does not exist any more."""
        self._running.pop(key, None)
        self._phases.gone(key)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every family."""
        yield self._phases.gauge()
        failed = _TRIES.counter()
        for reason, count in self._failed.items():
            failed.add_metric([reason], count)
        yield failed
        for declared, field in _OF_PROGRESS:
            gauge = declared.gauge()
            for key, status in self._running.items():
                if (value := getattr(status.progress, field, None)) is not None:
                    gauge.add_metric([key.namespace, key.name], value)
            yield gauge
