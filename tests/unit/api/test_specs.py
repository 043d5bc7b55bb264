"""Specs as users write them: what is refused, what is filled in, and that they come back as they were."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.base import ApiModel
from finetune_api.dataset import DatasetSpec
from finetune_api.evaluation import EvaluationSpec
from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.finetunesweep import FineTuneSweepSpec
from finetune_api.modeldeployment import ModelDeploymentSpec

JOB = {"model": {"uri": "s3://models/base"}, "dataset": {"training": {"uri": "s3://data/train.jsonl"}}}
CLASS = {"storage": {"bucket": "models", "credentialsSecretName": "s3"}}
EVALUATION = {
    "candidates": [{"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}}}],
    "dataset": {"uri": "s3://data/test.jsonl"},
    "graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}],
}
SWEEP = {
    "template": {"spec": {**JOB, "dataset": {**JOB["dataset"], "validation": {"splitPercent": 10}}}},
    "search": {"parameters": [{"path": "adapter.lora.rank", "numbers": [8, 16]}]},
}
DATASET = {"source": {"uri": "s3://data/tickets.jsonl"}}
DEPLOYMENT = {"model": {"fineTuneJobRef": {"name": "router"}}}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (FineTuneJobSpec, JOB),
        (FineTuneClassSpec, CLASS),
        (EvaluationSpec, EVALUATION),
        (ModelDeploymentSpec, DEPLOYMENT),
        (FineTuneSweepSpec, SWEEP),
        (DatasetSpec, DATASET),
    ],
    ids=["FineTuneJob", "FineTuneClass", "Evaluation", "ModelDeployment", "FineTuneSweep", "Dataset"],
)
def test_the_shortest_spec_is_complete_and_survives_the_wire(kind: type[ApiModel], spec: dict[str, Any]) -> None:
    parsed = kind.from_wire(spec)
    assert kind.from_wire(parsed.to_wire()) == parsed


def test_the_simplest_job_chooses_well() -> None:
    spec = FineTuneJobSpec.from_wire(JOB)
    assert (spec.method.type, spec.adapter.type, spec.adapter.low_rank.rank) == ("SFT", "LoRA", 16)
    assert (spec.run_id, spec.suspend, spec.retry_limit, spec.parallelism.nodes) == ("1", False, 3, 1)
    assert spec.hyperparameters.to_wire() == {}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"modle": {}}, "modle"),
        ({"class_nme": "x"}, "class_nme"),
        ({"hyperparameters": {"learningrate": 1}}, "hyperparameters.learningrate"),
        ({"hyperparameters": {"learningRate": 0}}, "hyperparameters.learningRate"),
        ({"adapter": {"type": "lora"}}, "adapter.type"),
        ({"runId": "a/b"}, "runId"),
        ({"runId": ""}, "runId"),
        ({"parallelism": {"nodes": 0}}, "parallelism.nodes"),
        ({"activeDeadlineSeconds": 10**12}, "activeDeadlineSeconds"),
        ({"model": {"uri": "file:///etc/passwd"}}, "model.uri"),
        ({"model": {"uri": "s3://bucket"}}, "model.uri"),
        ({"model": {"uri": "s3://bucket/key?versionId=1"}}, "model.uri"),
        ({"model": {"uri": "hf://name"}}, "model.uri"),
        ({"dataset": {"training": {"uri": "hf://org/data"}}}, "dataset.training.uri"),
        ({"dataset": {"training": {"uri": "s3://b/a b.jsonl"}}}, "dataset.training.uri"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        FineTuneJobSpec.from_wire({**JOB, **changes})
    assert field in {".".join(map(str, error["loc"])) for error in refused.value.errors()}


@pytest.mark.parametrize(
    "uri", ["hf://org/name", "hf://org/name@main", "hf://org/name@refs/pr/1", "s3://my.bucket/a/b"]
)
def test_every_form_of_a_model_uri_is_accepted(uri: str) -> None:
    assert FineTuneJobSpec.from_wire({**JOB, "model": {"uri": uri}}).model.uri == uri


def test_specs_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FineTuneJobSpec.from_wire(JOB).suspend = True  # type: ignore[misc]


def test_a_stored_number_outside_the_bounds_of_now_is_read_and_nothing_else_that_is_wrong() -> None:
    """Admission refuses it; an older version's did not, and its objects go on."""
    stored = {**EVALUATION, "gates": [{"grader": "exact", "minimum": 0}], "retryLimit": 1000}
    found = EvaluationSpec.from_storage(stored)
    assert (found.gates[0].minimum, found.retry_limit) == (0, 1000)
    for wrong in ({"retryLimit": "many"}, {"retryLimt": 1}, {"retryLimit": 2**63}, {"onError": "Panic"}):
        with pytest.raises(ValidationError):
            EvaluationSpec.from_storage({**EVALUATION, **wrong})
    with pytest.raises(ValidationError):
        EvaluationSpec.from_wire(stored)
