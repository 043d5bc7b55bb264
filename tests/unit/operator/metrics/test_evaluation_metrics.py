"""Metrics of evaluations, from what reconciliations found."""

from __future__ import annotations

from finetune_api.evaluation import EvaluationProgress, EvaluationStatus
from finetune_api.lifecycle import FailureStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.evaluation_metrics import EvaluationMetrics
from tests.unit.operator.evaluation_states import evaluated_status, evaluation_status
from tests.unit.operator.states import NOW

KEY = ObjectKey("Evaluation", "team-a", "router")


def samples(metrics: EvaluationMetrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def test_a_running_evaluation_has_its_progress_and_one_that_is_over_only_its_phase() -> None:
    metrics = EvaluationMetrics()
    progress = EvaluationProgress(percent=40, estimated_remaining_seconds=90, last_updated_time=NOW)
    running = evaluation_status(progress=progress)
    metrics.written(KEY, EvaluationStatus(), running)
    assert samples(metrics) == {
        ("finetune_evaluations", "team-a", "Evaluating"): 1,
        ("finetune_evaluation_percent", "team-a", "router"): 40,
        ("finetune_evaluation_estimated_remaining_seconds", "team-a", "router"): 90,
    }
    metrics.written(KEY, running, evaluated_status(progress=progress))
    assert samples(metrics) == {("finetune_evaluations", "team-a", "Passed"): 1}
    metrics.gone(KEY)
    assert samples(metrics) == {}


def test_failed_tries_are_counted_once_by_their_reason() -> None:
    metrics, failure = EvaluationMetrics(), FailureStatus(reason="GraderFailed", message="x")
    failed = evaluation_status(retries=1, failure=failure)
    metrics.written(KEY, evaluation_status(), failed)
    metrics.written(KEY, failed, failed)
    another_run = evaluation_status(run_id="2", retries=1, failure=failure)
    metrics.written(KEY, failed, another_run)
    assert samples(metrics)["finetune_evaluation_tries_failed_total", "GraderFailed"] == 2
