"""spec.nodes: an Indexed Job whose first Pod reports, and ends the run whatever the others do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import Outputs
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_operator.evaluation.plan import plan
from finetune_operator.evaluation.run_identity import run_digest
from finetune_operator.pods.observed import PodView
from tests.unit.operator.evaluation.plans import JOB, NEW, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    SCORES,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.states import LINE_7, NOW, failed_pod, job, pod, succeeded_pod

THREE = evaluation_spec(nodes=3)
INDEXED = {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "podReplacementPolicy": "Failed"}


def created(**changes: Any) -> tuple[EvaluateRun, dict[str, Any]]:
    config_map, body = plan(observed_evaluation(NEW, **changes), NOW).create
    return EvaluateRun.model_validate_json(config_map["data"]["run.json"]), body["spec"]


def test_several_pods_share_a_job_and_one_is_made_as_before() -> None:
    run, body = created(spec=THREE)
    assert (run.nodes, INDEXED.items() <= body.items()) == (3, True)
    run, body = created()
    assert (run.nodes, INDEXED.keys() & body.keys()) == (1, set())


def test_where_no_model_is_loaded_there_is_nothing_to_share() -> None:
    outputs = Outputs(uri="s3://data/outputs.jsonl")
    run, body = created(spec=THREE, candidates=(("tuned", outputs),), baseline=outputs)
    assert (run.nodes, INDEXED.keys() & body.keys()) == (1, set())


def test_the_class_limits_them() -> None:
    result = decide(observed_evaluation(NEW, spec=evaluation_spec(nodes=9)))
    assert result.decision.reason == Reason.LIMIT_EXCEEDED
    assert "spec.nodes is 9" in result.status.conditions[0].message


def test_another_number_is_no_other_run() -> None:
    assert run_digest(THREE) == run_digest(evaluation_spec())


FIRST = replace(succeeded_pod(JOB, EVALUATION_REPORT), index=0, name="first")
WAITS = replace(pod(JOB), index=1, name="waits", phase="Pending", started_time=None)
HELPED = replace(succeeded_pod(JOB, EVALUATION_REPORT), index=1, name="helped", message="")


@pytest.mark.parametrize("other", [(), (WAITS,), (HELPED,)], ids=["gone", "without a node", "ended"])
def test_the_report_of_the_first_pod_is_the_end(other: tuple[PodView, ...]) -> None:
    running = replace(job(JOB), parallelism=2)
    result = decide(observed_evaluation(evaluation_status(), running, pods=(FIRST, *other), spec=THREE))
    assert (result.decision.phase, result.status.results) == ("Passed", SCORES)


def test_the_end_of_another_pod_is_not() -> None:
    running = replace(job(JOB), parallelism=2)
    first = replace(pod(JOB), index=0, name="first")
    result = decide(observed_evaluation(evaluation_status(), running, pods=(first, HELPED), spec=THREE))
    assert (result.decision.phase, result.status.results) == ("Evaluating", [])


def test_the_failure_of_any_pod_is_that_of_the_try() -> None:
    failed = replace(failed_pod(JOB, LINE_7), index=1, name="second")
    first = replace(pod(JOB), index=0, name="first")
    ended = replace(job(JOB, "Failed"), parallelism=2)
    result = decide(observed_evaluation(evaluation_status(), ended, pods=(first, failed), spec=THREE))
    assert (result.decision.phase, result.decision.reason) == ("Failed", Reason.DATASET_INVALID)
