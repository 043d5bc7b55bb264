"""Candidates and baseline that are asked through an API, or whose outputs exist already."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.conditions import Reason
from finetune_api.evaluation import Endpoint, EvaluationSpec, Outputs, OutputsStatus
from finetune_api.finetuneclass import ListedModel
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.environment import Environment
from finetune_operator.evaluation.observe import observe
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.kube.resources import Object
from finetune_operator.models.endpoints import endpoint_config
from tests.unit.operator.evaluation.plans import JOB, NEW, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION,
    EVALUATION_REPORT,
    evaluation_status,
    observed_evaluation,
    tuned,
)
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import NOW, job, resolved_class, succeeded_pod

LARGE = {"name": "large", "url": "https://api.example.com/v1", "credentialsSecretName": "api-key"}
ON_GPUS = {
    "accelerator": {"countPerNode": 8},
    "resources": {"memory": "64Gi"},
    "scheduling": {"nodeSelector": {"gpu": "h100"}, "priorityClassName": "training"},
}
CONFIG = endpoint_config(ListedModel.from_wire(LARGE))
BIG = {"name": "big", "model": {"endpoint": {"name": "large"}}}
BEFORE = {"name": "before", "model": {"outputs": {"uri": "s3://data/outputs.jsonl"}}}
JOB_MODEL = {"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}}}
WIRE: dict[str, Any] = {
    "dataset": {"uri": "s3://data/test.jsonl"},
    "graders": [{"name": "exact", "type": "StringCheck"}],
    "baseline": {"model": {"outputs": {"uri": "s3://data/baseline.jsonl"}}},
}


NOTHING_RUNS = {
    f"GET {path}/namespaces/team-a/{kind}": {"items": []}
    for path, kind in (("/apis/batch/v1", "jobs"), ("/api/v1", "pods"))
}


def spec_of(*candidates: dict[str, Any], **changes: Any) -> EvaluationSpec:
    return EvaluationSpec.from_wire({**WIRE, "candidates": list(candidates), **changes})


def observed(spec: EvaluationSpec, **changes: Any) -> ObservedEvaluation:
    found = {"big": Endpoint(name="large"), "before": Outputs(uri="s3://data/outputs.jsonl"), "tuned": tuned()}
    defaults: dict[str, Any] = {
        "spec": spec,
        "class_": resolved_class(models=[LARGE], **ON_GPUS),
        "candidates": tuple((candidate.name, found[candidate.name]) for candidate in spec.candidates),
        "baseline": None if spec.baseline is None else spec.baseline.model.endpoint or spec.baseline.model.outputs,
        "endpoints": (CONFIG,),
    }
    return observed_evaluation(changes.pop("status", NEW), **{**defaults, **changes})


def made(found: ObservedEvaluation) -> tuple[EvaluateRun, Object]:
    config_map, evaluate = plan(found, NOW).create
    spec: Object = evaluate["spec"]["template"]["spec"]
    return EvaluateRun.model_validate_json(config_map["data"]["run.json"]), spec


def test_the_pod_is_told_whom_to_ask_and_what_to_read() -> None:
    run, spec = made(observed(spec_of(JOB_MODEL, BIG, BEFORE)))
    assert [(one.name, one.endpoint, one.outputs_uri) for one in run.models] == [
        ("baseline", None, "s3://data/baseline.jsonl"),
        ("tuned", None, None),
        ("big", "large", None),
        ("before", None, "s3://data/outputs.jsonl"),
    ]
    assert run.models[1].model == tuned().source
    assert [one.name for one in run.endpoints] == ["large"]
    assert run.answers_uri is not None, "what was answered is paid for once"
    assert "model-key-large" in [volume["name"] for volume in spec["volumes"]]


def test_a_pod_that_loads_no_model_is_made_and_placed_as_a_preflight_is() -> None:
    _, spec = made(observed(spec_of(BIG, BEFORE)))
    resources = spec["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "2Gi", "ephemeral-storage": "10Gi"}
    assert resources["requests"]["cpu"] == "500m"
    assert "nodeSelector" not in spec, "no node with GPUs is needed"
    assert spec["priorityClassName"] == "training"
    _, spec = made(observed(spec_of(JOB_MODEL, BIG)))
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert spec["nodeSelector"] == {"gpu": "h100"}


def test_the_class_allows_the_files_with_outputs() -> None:
    class_ = resolved_class(sources={"datasets": ["s3://data/test.jsonl", "s3://data/baseline.jsonl"]}, models=[LARGE])
    result = decide(observed(spec_of(BEFORE), class_=class_))
    assert (result.decision.reason, result.decision.writes) == ("SourceNotAllowed", ())
    assert "'s3://data/outputs.jsonl'" in result.message


@pytest.mark.parametrize(
    ("candidates", "changes", "who"),
    [
        ([BIG], {}, "Candidate 'big' is"),
        ([BEFORE], {"baseline": {"model": {"endpoint": {"name": "large"}}}}, "The baseline is"),
    ],
)
async def test_a_model_that_the_class_does_not_list_is_not_asked(
    candidates: list[dict[str, Any]], changes: dict[str, Any], who: str
) -> None:
    class_path = "GET /apis/finetune.dev/v1alpha1/finetuneclasses/small"
    meta = {"name": "small", "generation": 1, "uid": "c"}
    class_ = {"metadata": meta, "spec": resolved_class().spec.to_wire()}
    spec = spec_of(*candidates, **changes, className="small")
    mine = {"namespace": "team-a", "name": EVALUATION.name, "uid": EVALUATION.uid, "generation": 1}
    mine["creationTimestamp"] = "2026-11-22T11:00:00Z"
    parent = {"kind": "Evaluation", "apiVersion": "finetune.dev/v1alpha1", "metadata": mine, "spec": spec.to_wire()}
    found = await observe(FakeKube({class_path: class_, **NOTHING_RUNS}), parent, environment=Environment())
    result = decide(found)
    assert (result.decision.reason, result.decision.stalled, result.decision.writes) == ("ModelNotListed", True, ())
    assert result.message.startswith(f"{who} the model 'large', and FineTuneClass 'small' lists none.")


def test_a_try_that_runs_goes_on_while_the_api_s_deployment_does_not_serve() -> None:
    """It asks again and again by itself; ending it would pay twice."""
    spec = spec_of(BIG)
    begun = plan(observed(spec), NOW).status
    assert begun.job_name is not None
    gone: Readiness = stalled(Reason.REFERENCE_NOT_FOUND, "ModelDeployment 'x' does not exist.")
    running = observed(spec, status=begun, endpoints=(gone,), jobs=(job(begun.job_name, "Active"),))
    assert plan(running, NOW).delete == ()


def latency(low: int, median: int, high: int) -> dict[str, int]:
    names = ("latency_low_milliseconds", "latency_milliseconds", "latency_high_milliseconds")
    return dict(zip(names, (low, median, high), strict=True))


@pytest.mark.parametrize(
    ("outputs", "refused"),
    [
        ({"candidate": "tuned", "count": 5, "measurements": 5, **latency(500, 1000, 2000)}, None),
        ({"candidate": "nobody", "count": 5}, "it names the candidate 'nobody', which is not in the spec"),
        ({"candidate": "tuned", "count": -1}, "impossible"),
        ({"candidate": "tuned", "count": 1, "cost": -0.5}, "impossible"),
        ({"candidate": "tuned", "count": 1, **latency(2000, 1000, 3000)}, "impossible"),
    ],
)
def test_what_is_said_of_outputs_is_held_against_the_spec(outputs: dict[str, Any], refused: str | None) -> None:
    report = EVALUATION_REPORT.model_copy(update={"outputs": [OutputsStatus(**outputs)]})
    assert isinstance(report, EvaluationReport)
    running = observed_evaluation(evaluation_status(), job(JOB, "Succeeded"), pods=(succeeded_pod(JOB, report),))
    result = decide(running)
    if refused is None:
        assert result.status.outputs == report.outputs
    else:
        assert result.decision.reason == "ReportRefused"
        assert refused in result.message


def test_a_model_is_one_thing() -> None:
    with pytest.raises(ValidationError, match="set exactly one of uri, fineTuneJobRef, sweepRef, endpoint and outputs"):
        spec_of({"name": "both", "model": {"uri": "s3://models/a", "endpoint": {"name": "large"}}})
