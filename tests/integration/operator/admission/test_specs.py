"""Bad input is refused by the API server, at once and naming the field: no object, no Pod, nothing to clean up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.base import GROUP
from tests.integration.operator.admission.shortest_specs import (
    CANDIDATE,
    CLASS,
    DRY_RUN,
    EVALUATION,
    GRADER,
    JOB,
    REFERENCE,
)
from tests.integration.operator.api import Api, Object, RefusedError

EXAMPLES = Path(__file__).parents[4] / "examples"
DEPLOYMENT: Object = {"model": REFERENCE}
URI_OR_SPLIT = {"validation": {"uri": "s3://data/valid.jsonl", "splitPercent": 10}}
MODEL: Object = {"name": "judge", "url": "https://api.example.com/v1"}
TONE: Object = {
    "name": "tone",
    "type": "ScoreModel",
    "scoreModel": {"model": "judge", "input": [{"content": "Rate {{sample.output_text}}"}]},
}
GOOD = {"FineTuneJob": JOB, "FineTuneClass": CLASS, "Evaluation": EVALUATION, "ModelDeployment": DEPLOYMENT}


@pytest.mark.parametrize("kind", GOOD)
def test_the_shortest_spec_is_taken(api: Api, kind: str) -> None:
    assert api.create(kind, "good", GOOD[kind], query=DRY_RUN)["spec"]


def example_documents() -> list[Object]:
    documents = [
        document
        for file in sorted(EXAMPLES.rglob("*.yaml"))
        if file.parent.name != "laptop"  # its paths are of no cluster
        for document in yaml.safe_load_all(file.read_text())
        if document["apiVersion"].startswith(GROUP)
    ]
    assert documents
    return documents


@pytest.mark.parametrize("document", example_documents(), ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_every_example_is_taken(api: Api, document: Object) -> None:
    assert api.create(document["kind"], document["metadata"]["name"], document["spec"], query=DRY_RUN)


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        # Unknown fields.
        ("FineTuneJob", {"modle": {}}, ['unknown field "spec.modle"']),
        ("FineTuneJob", {"hyperparameters": {"lr": 1}}, ['unknown field "spec.hyperparameters.lr"']),
        ("FineTuneClass", {"storage": {**CLASS["storage"], "buket": "x"}}, ['unknown field "spec.storage.buket"']),
        # Bad enums, patterns and bounds.
        ("FineTuneJob", {"method": {"type": "PPO"}}, ["spec.method.type", '"PPO"', '"SFT"', '"DPO"']),
        ("FineTuneJob", {"adapter": {"type": "lora"}}, ["spec.adapter.type", '"LoRA"', '"Full"']),
        ("FineTuneJob", {"hyperparameters": {"schedule": "cosine"}}, ["spec.hyperparameters.schedule", '"Cosine"']),
        (
            "FineTuneJob",
            {"hyperparameters": {"learningRate": 0}},
            ["spec.hyperparameters.learningRate", "greater than 0"],
        ),
        (
            "FineTuneJob",
            {"hyperparameters": {"epochs": "3"}},
            ["spec.hyperparameters.epochs", "must be of type number"],
        ),
        ("FineTuneJob", {"adapter": {"lora": {"dropout": 1}}}, ["spec.adapter.lora.dropout", "less than 1"]),
        ("FineTuneJob", {"parallelism": {"nodes": 0}}, ["spec.parallelism.nodes", "greater than or equal to 1"]),
        ("FineTuneJob", {"activeDeadlineSeconds": 10**10}, ["spec.activeDeadlineSeconds", "less than or equal to"]),
        ("FineTuneJob", {"model": {"uri": "file:///etc/passwd"}}, ["spec.model.uri", "s3://"]),
        ("FineTuneJob", {"model": {"uri": "s3://bucket-only"}}, ["spec.model.uri"]),
        ("FineTuneJob", {"dataset": {"training": {"uri": "hf://org/data"}}}, ["spec.dataset.training.uri"]),
        ("FineTuneJob", {"runId": "../other"}, ["spec.runId"]),
        ("FineTuneJob", {"className": "A_B"}, ["spec.className"]),
        (
            "FineTuneClass",
            {"storage": {**CLASS["storage"], "endpoint": "http://user:pw@host"}},
            ["spec.storage.endpoint"],
        ),
        ("FineTuneClass", {"resources": {"memory": "four"}}, ["spec.resources.memory"]),
        ("FineTuneClass", {"sources": {"models": ["s3://finetune/models*"]}}, ["spec.sources.models[0]"]),
        ("FineTuneClass", {"sources": {"images": ["https://images.example.com/public*"]}}, ["spec.sources.images[0]"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"finetune.dev/role": "train"}}}, ["are reserved for"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"x.finetune.dev/role": "train"}}}, ["are reserved for"]),
        ("FineTuneClass", {"podMetadata": {"annotations": {"finetune.dev/owner": "x"}}}, ["are reserved for"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"app.kubernetes.io/managed-by": "x"}}}, ["are reserved for"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"a/b/c": "x"}}}, ["a key of labels is"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"-a": "x"}}}, ["a key of labels is"]),
        (
            "FineTuneClass",
            {"podMetadata": {"annotations": {"Upper.case/a": "x"}}},
            ["the prefix of a key of annotations"],
        ),
        ("FineTuneClass", {"podMetadata": {"labels": {"a..b/c": "x"}}}, ["the prefix of a key of labels"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"a/": "x"}}}, ["a key of labels is"]),
        ("FineTuneClass", {"podMetadata": {"labels": {"a": "two words"}}}, ["spec.podMetadata.labels.a"]),
        ("Evaluation", {"candidates": []}, ["spec.candidates", "should have at least 1 items"]),
        ("Evaluation", {"candidates": [CANDIDATE] * 2}, ["spec.candidates[1]", "Duplicate value"]),
        ("Evaluation", {"graders": [GRADER] * 2}, ["spec.graders[1]", "Duplicate value"]),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimum": 1.5}]},
            ["spec.gates[0].minimum", "less than or equal to 1"],
        ),
        ("ModelDeployment", {"replicas": -1}, ["spec.replicas", "greater than or equal to 0"]),
        ("ModelDeployment", {"runtime": {"type": "TGI"}}, ["spec.runtime.type", '"Transformers"']),
        # Names of other objects, labels and quantities, as Kubernetes has them.
        ("FineTuneClass", {"storage": {"bucket": "A", "credentialsSecretName": "s3"}}, ["spec.storage.bucket"]),
        (
            "FineTuneClass",
            {"storage": {"bucket": "models", "credentialsSecretName": "team.A"}},
            ["spec.storage.credentialsSecretName", "should match"],
        ),
        (
            "FineTuneClass",
            {"storage": {"bucket": "models", "serviceAccountName": "-a"}},
            ["spec.storage.serviceAccountName"],
        ),
        ("FineTuneClass", {"scheduling": {"priorityClassName": "High"}}, ["spec.scheduling.priorityClassName"]),
        ("FineTuneClass", {"scheduling": {"queueName": "x" * 64}}, ["spec.scheduling.queueName", "may not be more"]),
        (
            "FineTuneClass",
            {"preflight": {"scheduling": {"runtimeClassName": "a..b"}}},
            ["spec.preflight.scheduling.runtimeClassName"],
        ),
        (
            "FineTuneClass",
            {"scheduling": {"nodeSelector": {"not a key": "x"}}},
            ["spec.scheduling.nodeSelector", "each key must be a valid label key"],
        ),
        (
            "FineTuneClass",
            {"scheduling": {"nodeSelector": {"zone": "not a value"}}},
            ["spec.scheduling.nodeSelector.zone", "should match"],
        ),
        ("FineTuneClass", {"accelerator": {"resourceName": "gpu"}}, ["spec.accelerator.resourceName", "should match"]),
        ("FineTuneClass", {"images": {"trainer": "registry/a b"}}, ["spec.images.trainer"]),
        ("FineTuneClass", {"resources": {"cpu": -1}}, ["spec.resources.cpu", "greater than or equal to 0"]),
        ("FineTuneClass", {"resources": {"cpu": "-1"}}, ["spec.resources.cpu", "should match"]),
        ("FineTuneClass", {"resources": {"memory": "4 Gi"}}, ["spec.resources.memory", "should match"]),
        ("FineTuneClass", {"resources": {"memory": True}}, ["spec.resources.memory", "must be of type"]),
        (
            "FineTuneClass",
            {"scheduling": {"tolerations": [{"effect": "NoSchedule"}]}},
            ["spec.scheduling.tolerations[0].operator", "operator must be Exists if there is no key"],
        ),
        (
            "FineTuneClass",
            {"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "a"}]}},
            ["spec.scheduling.tolerations[0].value", "value is only allowed with operator Equal"],
        ),
        (
            "FineTuneClass",
            {"scheduling": {"tolerations": [{"key": "gpu", "value": "a", "tolerationSeconds": 1}]}},
            ["spec.scheduling.tolerations[0].tolerationSeconds", "only allowed with effect NoExecute"],
        ),
        # Sets, and numbers that no int32 holds.
        ("FineTuneClass", {"sources": {"models": ["s3://*", "s3://*"]}}, ["spec.sources.models[1]", "Duplicate value"]),
        (
            "FineTuneJob",
            {"adapter": {"lora": {"targetModules": ["q_proj", "q_proj"]}}},
            ["spec.adapter.lora.targetModules[1]", "Duplicate value"],
        ),
        ("FineTuneJob", {"checkpoints": {"everySteps": 2**31}}, ["spec.checkpoints.everySteps", "less than or equal"]),
        (
            "Evaluation",
            {"dataset": {"uri": "s3://data/test.jsonl", "limitExamples": 2**31}},
            ["spec.dataset.limitExamples", "less than or equal"],
        ),
        (
            "FineTuneClass",
            {"storage": {**CLASS["storage"], "serverSideEncryption": {"type": "S3", "kms": {}}}},
            ["spec.storage.serverSideEncryption.kms", "kms is only allowed with type KMS"],
        ),
        # Missing fields.
        ("FineTuneJob", {"model": None}, ["spec.model: Required value"]),
        ("FineTuneJob", {"dataset": {}}, ["spec.dataset.training: Required value"]),
        # Exactly one of two.
        (
            "FineTuneJob",
            {"dataset": {**JOB["dataset"], **URI_OR_SPLIT}},
            ["spec.dataset.validation", "exactly one of uri, uris, configMapRef and splitPercent"],
        ),
        (
            "FineTuneJob",
            {"dataset": {**JOB["dataset"], "validation": {}}},
            ["exactly one of uri, uris, configMapRef and splitPercent"],
        ),
        (
            "FineTuneJob",
            {"dataset": {"training": {"uri": "s3://data/a.jsonl", "uris": ["s3://data/b.jsonl"]}}},
            ["spec.dataset.training", "exactly one of uri, uris and configMapRef"],
        ),
        ("FineTuneJob", {"dataset": {"training": {}}}, ["exactly one of uri, uris and configMapRef"]),
        ("FineTuneJob", {"dataset": {"training": {"uris": []}}}, ["spec.dataset.training.uris"]),
        (
            "FineTuneJob",
            {"dataset": {"training": {"configMapRef": {"name": "Data", "key": "../train"}}}},
            ["spec.dataset.training.configMapRef.name", "spec.dataset.training.configMapRef.key"],
        ),
        # What makes no sense together.
        (
            "FineTuneJob",
            {"dataset": {"training": JOB["dataset"]["training"], "prepare": {"leaks": "Drop"}}},
            ["spec.dataset.prepare.leaks", "prepare.leaks: Drop needs a validation set"],
        ),
        (
            "FineTuneJob",
            {"dataset": {**JOB["dataset"], "format": "Preference"}},
            ["spec.dataset.format", "dataset.format Preference requires method DPO"],
        ),
        (
            "FineTuneJob",
            {"dataset": {"training": {**JOB["dataset"]["training"], "limit": {"examples": 1, "percent": 1}}}},
            ["spec.dataset.training.limit", "exactly one of examples and percent"],
        ),
        (
            "FineTuneClass",
            {"storage": {**CLASS["storage"], "serviceAccountName": "s3"}},
            ["spec.storage", "exactly one of credentialsSecretName and serviceAccountName"],
        ),
        ("FineTuneClass", {"storage": {"bucket": "models"}}, ["spec.storage", "exactly one of credentialsSecretName"]),
        (
            "ModelDeployment",
            {"model": {**REFERENCE, "uri": "s3://models/base"}},
            ["spec.model", "exactly one of uri and fineTuneJobRef"],
        ),
        ("ModelDeployment", {"model": {}}, ["exactly one of uri and fineTuneJobRef"]),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "maximum": 0.5, "decision": "LowerBound"}]},
            ["spec.gates[0].decision", "decision LowerBound requires minimum or minimumDelta"],
        ),
        (
            "Evaluation",
            {"generation": {"samplesPerExample": 4}},
            ["spec.generation.samplesPerExample", "needs a temperature above 0"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimum": 0.5, "minimumDelta": 0.1}]},
            ["spec.gates[0]", "exactly one of minimum, minimumDelta, maximum and maximumDelta"],
        ),
        # What must go together.
        (
            "FineTuneJob",
            {"checkpoints": {"best": {"metric": "EvalLoss"}}},
            ["spec.checkpoints.best", "checkpoints.best by EvalLoss needs dataset.validation"],
        ),
        (
            "FineTuneJob",
            {"hyperparameters": {"earlyStopping": {}}},
            ["spec.hyperparameters.earlyStopping", "hyperparameters.earlyStopping needs dataset.validation"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "DPO", "sft": {}}},
            ["spec.method.sft", "sft is only allowed with type SFT"],
        ),
        ("FineTuneJob", {"method": {"dpo": {"beta": 0.2}}}, ["spec.method.dpo", "dpo is only allowed with type DPO"]),
        ("FineTuneJob", {"method": {"type": "DPO", "dpo": {"beta": 0}}}, ["spec.method.dpo.beta", "greater than 0"]),
        ("FineTuneJob", {"method": {"sft": {"promptLossWeight": 1.5}}}, ["spec.method.sft.promptLossWeight"]),
        (
            "FineTuneJob",
            {"method": {"type": "DPO"}, "hyperparameters": {"packing": True}},
            ["spec.hyperparameters.packing", "hyperparameters.packing needs method.type SFT"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "DPO"}, "parallelism": {"strategy": "FSDP"}},
            ["spec.parallelism.strategy", "method.type DPO needs parallelism.strategy DDP"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"full": {"freeze": {"layers": 2}}}},
            ["spec.adapter.full", "full is only allowed with type Full"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "Full", "lora": {"inherited": "Merge"}}, "model": REFERENCE},
            ["spec.adapter.lora", "lora is only allowed with type LoRA"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "LoRA", "qlora": {}}},
            ["spec.adapter.qlora", "qlora is only allowed with type QLoRA"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "QLoRA", "qlora": {"inherited": "Merge"}}, "model": REFERENCE},
            ["spec.adapter.qlora.inherited", 'supported values: "Continue"'],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "QLoRA"}, "parallelism": {"strategy": "FSDP"}},
            ["spec.parallelism.strategy", "adapter.type QLoRA needs parallelism.strategy DDP"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"lora": {"inherited": "Merge"}}},
            ["spec.adapter", "inherited needs model.fineTuneJobRef"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "QLoRA", "qlora": {"inherited": "Continue"}}},
            ["spec.adapter", "inherited needs model.fineTuneJobRef"],
        ),
        (
            "FineTuneJob",
            {"model": {**REFERENCE, **JOB["model"]}},
            ["spec.model", "exactly one of uri and fineTuneJobRef"],
        ),
        ("FineTuneJob", {"model": {}}, ["spec.model", "exactly one of uri and fineTuneJobRef"]),
        (
            "Evaluation",
            {"gates": [{"grader": "other", "minimum": 0.5}]},
            ["spec.gates", "each gate names one of the graders"],
        ),
        (
            "Evaluation",
            {"candidates": [{**CANDIDATE, "name": "baseline"}]},
            ["spec.candidates", "can't be named baseline"],
        ),
        (
            "Evaluation",
            {"candidates": [{"name": "tuned", "model": {"uri": "s3://models/tuned"}}]},
            ["spec.baseline", "without a baseline, the first candidate must be a fineTuneJobRef"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "exact", "type": "StringCheck", "jsonSchema": {"schema": {}}}]},
            ["spec.graders[0].jsonSchema", "jsonSchema is only allowed with type JsonSchema"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "schema", "type": "JsonSchema"}]},
            ["spec.graders[0].jsonSchema", "jsonSchema is required with type JsonSchema"],
        ),
        # Graders that ask a model, and the class's models.
        (
            "Evaluation",
            {"graders": [{**TONE, "scoreModel": {**TONE["scoreModel"], "range": [5, 1]}}]},
            ["spec.graders[0].scoreModel.range", "range is the least and the greatest number"],
        ),
        (
            "Evaluation",
            {"graders": [{**TONE, "scoreModel": {**TONE["scoreModel"], "range": [1]}}]},
            ["spec.graders[0].scoreModel.range", "should have at least 2 items"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "near", "type": "TextSimilarity", "textSimilarity": {"metric": "Cosine"}}]},
            ["spec.graders[0].textSimilarity.model", "metric Cosine requires model"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "near", "type": "TextSimilarity", "textSimilarity": {"model": "embedder"}}]},
            ["spec.graders[0].textSimilarity.model", "no other metric has one"],
        ),
        ("Evaluation", {"budget": {"requests": 0}}, ["spec.budget.requests", "greater than or equal to 1"]),
        ("FineTuneClass", {"models": [MODEL] * 2}, ["spec.models[1]", "Duplicate value"]),
        ("FineTuneClass", {"models": [{"name": "judge"}]}, ["exactly one of url and modelDeploymentRef"]),
        (
            "FineTuneClass",
            {"models": [{**MODEL, "modelDeploymentRef": {"name": "judge"}}]},
            ["exactly one of url and modelDeploymentRef"],
        ),
        (
            "FineTuneClass",
            {"models": [{"name": "j", "modelDeploymentRef": {"name": "judge"}, "credentialsSecretName": "key"}]},
            ["a ModelDeployment has no key"],
        ),
        ("FineTuneClass", {"models": [{"name": "j", "url": "file:///etc/passwd"}]}, ["spec.models[0].url"]),
        (
            "FineTuneClass",
            {"models": [{"name": "j", "url": "https://user:key@api.example.com"}]},
            ["spec.models[0].url"],
        ),
        (
            "FineTuneClass",
            {"models": [{"name": "j", "url": "https://api.example.com/v1?key=x"}]},
            ["spec.models[0].url"],
        ),
    ],
)
def test_what_is_wrong_is_refused_and_named(api: Api, kind: str, changes: dict[str, Any], told: list[str]) -> None:
    spec = {name: value for name, value in {**GOOD[kind], **changes}.items() if value is not None}
    with pytest.raises(RefusedError) as refused:
        api.create(kind, "bad", spec, query=DRY_RUN)
    assert refused.value.code in (400, 422)
    assert all(part in refused.value.message for part in told), refused.value.message


@pytest.mark.parametrize("name", ["has.a.dot", "x" * 64])
@pytest.mark.parametrize("kind", GOOD)
def test_a_name_that_nothing_could_refer_to_is_refused(api: Api, kind: str, name: str) -> None:
    with pytest.raises(RefusedError, match=r"metadata\.name must have at most 63"):
        api.create(kind, name, GOOD[kind], query=DRY_RUN)


@pytest.mark.parametrize("kind", GOOD)
def test_a_name_that_begins_with_a_digit_is_taken(api: Api, kind: str) -> None:
    assert api.create(kind, "7b-chat", GOOD[kind], query=DRY_RUN)
