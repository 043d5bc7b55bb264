"""A field that is unknown, missing or wrong is refused by the API server, by its name: there is nothing to clean up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import CANDIDATE, CLASS, GRADER, assert_refused
from tests.integration.operator.api import Api


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
        # A threshold that nothing can miss.
        (
            "Evaluation",
            {"graders": [{**GRADER, "passThreshold": 0}]},
            ["spec.graders[0].passThreshold", "greater than 0"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimum": 0}]},
            ["spec.gates[0].minimum", "greater than 0"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimumDelta": -1}]},
            ["spec.gates[0].minimumDelta", "greater than -1"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "maximum": 1}]},
            ["spec.gates[0].maximum", "less than 1"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "maximumDelta": 1}]},
            ["spec.gates[0].maximumDelta", "less than 1"],
        ),
        ("ModelDeployment", {"replicas": -1}, ["spec.replicas", "greater than or equal to 0"]),
        ("ModelDeployment", {"runtime": {"type": "TGI"}}, ["spec.runtime.type", '"Transformers"']),
        (
            "ModelDeployment",
            {"gateway": {}, "rollout": {"type": "Canary", "canary": {"rollbackWindowSeconds": -1}}},
            ["spec.rollout.canary.rollbackWindowSeconds", "greater than or equal to 0"],
        ),
        ("ModelDeployment", {"rollout": {"rollbackTo": ["a"]}}, ["spec.rollout.rollbackTo", "string"]),
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
        ("FineTuneClass", {"images": {"pullSecretNames": ["A"]}}, ["spec.images.pullSecretNames[0]"]),
        ("FineTuneClass", {"hub": {"endpoint": "http://hub", "tokenSecretName": "t"}}, ["only sent to https://"]),
        (
            "FineTuneClass",
            {"accelerator": {"additionalResources": [{"resourceName": "nvidia.com/gpu"}]}},
            ["spec.accelerator.additionalResources", "the accelerator itself"],
        ),
        ("FineTuneClass", {"serving": {"resources": {"memory": "1Gi"}}}, ["spec.serving.resources.cpu", "Required"]),
        ("FineTuneClass", {"hub": {"endpoint": "https://user:pw@hub"}}, ["spec.hub.endpoint"]),
        ("FineTuneClass", {"env": [{"name": "a-b"}]}, ["spec.env[0].name"]),
        ("FineTuneClass", {"env": [{"name": "HF_TOKEN", "value": "x"}]}, ["credentials belong in Secrets"]),
        ("FineTuneClass", {"env": [{"name": "PYTHONPATH"}]}, ["set by Kubernetes, the operator"]),
        ("FineTuneClass", {"env": [{"name": "JOB_COMPLETION_INDEX"}]}, ["set by Kubernetes, the operator"]),
        (
            "FineTuneClass",
            {"env": [{"name": "HTTPS_PROXY", "value": "http://bob:secret@proxy:3128"}]},
            ["spec.env[0].value", "a URL with credentials"],
        ),
        ("FineTuneClass", {"env": [{"name": "A"}, {"name": "A"}]}, ["Duplicate value"]),
        (
            "FineTuneClass",
            {"serving": {"accelerator": {"countPerNode": 1}}},
            ["serving.accelerator needs a resourceName"],
        ),
        (
            "FineTuneClass",
            {"evaluation": {"accelerator": {"countPerNode": -1}}},
            ["accelerator.countPerNode"],
        ),
        (
            "FineTuneClass",
            {"scheduling": {"nodeRequirements": [{"key": "zone", "operator": "In"}]}},
            ["spec.scheduling.nodeRequirements[0].values", "which need some"],
        ),
        (
            "FineTuneClass",
            {"scheduling": {"nodeRequirements": [{"key": "zone", "operator": "Exists", "values": ["a"]}]}},
            ["spec.scheduling.nodeRequirements[0].values", "not to Exists"],
        ),
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
            {"dataset": {"uri": "s3://data/test.jsonl", "maxExamples": 2**31}},
            ["spec.dataset.maxExamples", "less than or equal"],
        ),
        (
            "FineTuneClass",
            {"storage": {**CLASS["storage"], "serverSideEncryption": {"type": "S3", "kms": {}}}},
            ["spec.storage.serverSideEncryption.kms", "kms is only allowed with type KMS"],
        ),
        # Missing fields.
        ("FineTuneJob", {"model": None}, ["spec.model: Required value"]),
        ("FineTuneJob", {"dataset": {}}, ["spec.dataset.training: Required value"]),
    ],
)
def test_a_wrong_field_is_refused_and_named(api: Api, kind: str, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, kind, changes, told)
