"""Benchmarks beside graders: in the run configuration, the results and the gates."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.evaluation.benchmarks import BENCHMARK_TASKS
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_operator.evaluation.plan import plan
from tests.unit.operator.evaluation.plans import JOB, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    SCORES,
    evaluated_status,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    score,
    tuned,
)
from tests.unit.operator.states import NOW, job, resolved_class, succeeded_pod

ARC = {"name": "arc", "task": "arc_easy", "mirror": {"uri": "s3://data/mirror"}, "maxExamples": 250}
AT_MOST_TWO_POINTS = {"benchmark": "arc", "minimumDelta": -0.02}


def spec_of(**changes: Any) -> EvaluationSpec:
    return evaluation_spec(**{"benchmarks": [ARC], "gates": [AT_MOST_TWO_POINTS], **changes})


def on_arc(delta: float, half: float) -> EvaluationStatus:
    """Scores by the grader, and of the benchmark this gain over the baseline with this interval."""
    gain = {"delta": delta, "delta_low": delta - half, "delta_high": delta + half}
    found = score("tuned", 0.6, grader="arc").model_copy(update=gain)
    return evaluated_status(results=[*SCORES, score("baseline", 0.6, grader="arc"), found])


def test_the_pod_is_told_the_benchmarks() -> None:
    decided = plan(observed_evaluation(EvaluationStatus(), spec=spec_of()), NOW)
    config_map = next(body for body in decided.create if body["kind"] == "ConfigMap")
    run = EvaluateRun.from_wire(orjson.loads(config_map["data"]["run.json"]))
    assert [one.to_wire() for one in run.benchmarks] == [{**ARC, "chatTemplate": False}]


def test_without_benchmarks_the_pods_configuration_is_what_it_was() -> None:
    """So that an operator of this version starts no try anew that one before has created."""
    decided = plan(observed_evaluation(EvaluationStatus(), spec=evaluation_spec()), NOW)
    config_map = next(body for body in decided.create if body["kind"] == "ConfigMap")
    assert "benchmarks" not in orjson.loads(config_map["data"]["run.json"])


@pytest.mark.parametrize(
    ("delta", "half", "verdict", "phase"),
    [
        (0.0, 0.01, "Passed", "Passed"),
        (0.0, 0.05, "Inconclusive", "Inconclusive"),
        (-0.1, 0.05, "Failed", "GateFailed"),
    ],
)
def test_a_gate_on_a_benchmark_decides_by_the_interval_of_the_gain(
    delta: float, half: float, verdict: str, phase: str
) -> None:
    decided = plan(observed_evaluation(on_arc(delta, half), spec=spec_of()), NOW).status
    (gate,) = decided.gates
    assert (gate.candidate, gate.grader, gate.verdict) == ("tuned", "arc", verdict)
    assert gate.message.startswith(f"gain over the baseline {delta:+.3f}")
    assert decided.phase == phase


def test_a_gate_that_so_few_examples_can_not_decide_is_warned_of_before_anything_runs() -> None:
    (warning,) = plan(observed_evaluation(EvaluationStatus(), spec=spec_of()), NOW).status.warnings
    assert "difference of 0.02 by 'arc', which 250 examples can hardly detect: about 1963 are needed" in warning


@pytest.mark.parametrize(("name", "reason"), [("arc", Reason.EVALUATED), ("hellaswag", Reason.REPORT_REFUSED)])
def test_a_report_may_have_scores_of_benchmarks_of_the_spec_alone(name: str, reason: Reason) -> None:
    found = [*SCORES, score("baseline", 0.5, grader=name), score("tuned", 0.5, 0.0, grader=name)]
    said = succeeded_pod(JOB, EVALUATION_REPORT.model_copy(update={"scores": found}))
    running = observed_evaluation(evaluation_status(), job(JOB, "Succeeded"), pods=(said,), spec=spec_of(gates=[]))
    assert decide(running).decision.reason == reason


def test_a_mirror_that_the_class_does_not_allow_is_refused() -> None:
    class_ = resolved_class(sources={"datasets": ["s3://data/test.jsonl"]})
    decided = plan(observed_evaluation(EvaluationStatus(), spec=spec_of(), class_=class_), NOW)
    condition = next(one for one in decided.status.conditions if one.type == "Ready")
    assert condition.reason == Reason.SOURCE_NOT_ALLOWED
    assert "does not allow the dataset 's3://data/mirror'" in condition.message
    assert not decided.create


def test_benchmarks_count_where_every_checkpoint_has_scores() -> None:
    many = [{**ARC, "name": f"b{at}", "task": task} for at, task in enumerate(BENCHMARK_TASKS[:8])]
    spec = spec_of(
        benchmarks=many,
        gates=[],
        candidates=[{"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}, "checkpoint": "All"}}],
    )
    candidates = tuple((f"tuned-step-{step}", tuned(f"sha256:{step}")) for step in (1, 2, 3))
    decided = plan(observed_evaluation(EvaluationStatus(), spec=spec, candidates=candidates), NOW)
    condition = next(one for one in decided.status.conditions if one.type == "Ready")
    assert condition.reason == Reason.INVALID_SPEC
    assert "with 9 graders and benchmarks an Evaluation compares 2" in condition.message


def test_the_best_checkpoint_is_chosen_by_a_grader_though_the_first_gate_is_about_a_benchmark() -> None:
    spec = spec_of(
        gates=[AT_MOST_TWO_POINTS, {"grader": "exact", "minimum": 0.1}],
        candidates=[{"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}, "checkpoint": "All"}}],
    )
    scores = {1: (0.9, 0.1), 2: (0.2, 0.8)}
    results = [score("baseline", 0.1), score("baseline", 0.1, grader="arc")]
    for step, (exact, arc) in scores.items():
        results += [score(f"tuned-step-{step}", exact, 0.1), score(f"tuned-step-{step}", arc, 0.1, grader="arc")]
    digests = {f"tuned-step-{step}": f"sha256:{step}" for step in scores}
    status = evaluated_status(results=results, candidate_digests=digests)
    candidates = tuple((name, tuned(digest)) for name, digest in digests.items())
    (best,) = plan(observed_evaluation(status, spec=spec, candidates=candidates), NOW).status.best_checkpoints
    assert (best.step, best.grader) == (1, "exact")
