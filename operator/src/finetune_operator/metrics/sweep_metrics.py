"""Prometheus metrics of sweeps, from what reconciliations found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.object_metrics import PhaseCounts
from finetune_operator.metrics.operator_metrics import declare

_SWEEPS = declare("finetune_sweeps", "gauge", "Sweeps by phase.", ["namespace", "phase"])
_TRIALS = declare("finetune_sweep_trials_ended_total", "counter", "Trials of sweeps that ended, by state.", ["state"])


class SweepMetrics(Collector):
    """Counts of the sweeps by phase, and of the trials that ended."""

    def __init__(self) -> None:
        self._phases = PhaseCounts(_SWEEPS)
        self._ended: Counter[str] = Counter()

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        """A reconciliation of the sweep succeeded: its status was `before` and is `after`."""
        assert isinstance(before, FineTuneSweepStatus)
        assert isinstance(after, FineTuneSweepStatus)
        self.gone(key)
        self._phases.written(key, after.phase)
        is_same_run = before.run_number == after.run_number
        known = {trial.number for trial in before.trials if trial.state != "Running"} if is_same_run else frozenset()
        self._ended.update(
            trial.state for trial in after.trials if trial.state != "Running" and trial.number not in known
        )

    def gone(self, key: ObjectKey) -> None:
        """The sweep does not exist any more."""
        self._phases.gone(key)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every family."""
        yield self._phases.gauge()
        ended = _TRIALS.counter()
        for state, count in self._ended.items():
            ended.add_metric([state], count)
        yield ended
