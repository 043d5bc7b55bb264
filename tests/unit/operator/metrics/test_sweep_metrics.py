"""Sweeps by phase, and how their trials ended."""

from __future__ import annotations

from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.sweep_metrics import SweepMetrics

KEY = ObjectKey("FineTuneSweep", "team-a", "router")


def status(*states: str, run_number: int = 1) -> FineTuneSweepStatus:
    trials = [
        {"number": number, "fineTuneJobName": f"t-{number}", "state": state} for number, state in enumerate(states, 1)
    ]
    return FineTuneSweepStatus.read({"phase": "Running", "runNumber": run_number, "trials": trials})


def samples(metrics: SweepMetrics) -> dict[tuple[str, ...], float]:
    return {
        (one.name, *one.labels.values()): one.value
        for family in metrics.collect()
        for one in family.samples
        if one.value
    }


def test_a_trial_is_counted_once_when_it_ends() -> None:
    metrics = SweepMetrics()
    first, second = status("Running", "Running"), status("Succeeded", "Running")
    metrics.written(KEY, FineTuneSweepStatus(), first)
    metrics.written(KEY, first, second)
    metrics.written(KEY, second, second)
    assert samples(metrics) == {
        ("finetune_sweeps", "team-a", "Running"): 1,
        ("finetune_sweep_trials_ended_total", "Succeeded"): 1,
    }


def test_the_trials_of_another_run_are_others() -> None:
    metrics = SweepMetrics()
    metrics.written(KEY, status("Failed"), status("Failed", run_number=2))
    assert samples(metrics)["finetune_sweep_trials_ended_total", "Failed"] == 1


def test_a_sweep_that_is_gone_is_no_longer_counted() -> None:
    metrics = SweepMetrics()
    metrics.written(KEY, FineTuneSweepStatus(), status("Running"))
    metrics.gone(KEY)
    assert samples(metrics) == {}
