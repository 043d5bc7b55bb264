"""Bad input is refused by the API server, at once and naming the field: no object, no Pod, nothing to clean up."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.control_plane import ControlPlane
from finetune_api.base import GROUP
from finetune_api.crd import KINDS
from finetune_api.finetuneclass import FineTuneClassSpec
from tests.integration.operator.api import Api, Object, RefusedError, namespace

EXAMPLES = Path(__file__).parents[3] / "examples"
DRY_RUN = "&dryRun=All"

JOB: Object = {"model": {"uri": "s3://models/base"}, "dataset": {"training": {"uri": "s3://data/train.jsonl"}}}
CLASS: Object = {"storage": {"bucket": "models", "credentialsSecretName": "s3"}}
REFERENCE: Object = {"fineTuneJobRef": {"name": "router"}}
CANDIDATE: Object = {"name": "tuned", "model": REFERENCE}
GRADER: Object = {"name": "exact", "type": "StringCheck", "stringCheck": {}}
EVALUATION: Object = {
    "candidates": [CANDIDATE],
    "dataset": {"uri": "s3://data/test.jsonl"},
    "graders": [GRADER],
}
DEPLOYMENT: Object = {"model": REFERENCE}
URI_OR_SPLIT = {"validation": {"uri": "s3://data/valid.jsonl", "splitPercent": 10}}
GOOD = {"FineTuneJob": JOB, "FineTuneClass": CLASS, "Evaluation": EVALUATION, "ModelDeployment": DEPLOYMENT}


@pytest.fixture(scope="module")
def api(cluster: ControlPlane) -> Iterator[Api]:
    """One namespace for all: hardly any of these objects comes to be."""
    with namespace(cluster) as api:
        yield api


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


# A change of spec.


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"suspend": True}, True),
        ({"ttlSecondsAfterFinished": 60}, True),
        ({"runId": "2"}, True),
        ({"runId": "2", "hyperparameters": {"epochs": 5}, "model": {"uri": "s3://models/other"}}, True),
        ({"hyperparameters": {"epochs": 5}}, False),
        ({"model": {"uri": "s3://models/other"}}, False),
        ({"dataset": {"validation": {"splitPercent": 10}}}, False),
        ({"retryLimit": 5}, True),
        ({"className": "other"}, False),
        ({"activeDeadlineSeconds": 60}, True),
        ({"suspend": True, "retryLimit": 5}, True),
        ({"retryLimit": 5, "hyperparameters": {"epochs": 5}}, False),
        ({"adapter": None}, True),
        ({"parallelism": {"nodes": 1}}, True),
    ],
    ids=str,
)
def test_a_change_of_a_job_needs_another_run_id(api: Api, changes: dict[str, Any], taken: bool) -> None:
    """What only says a default in other words is no change."""
    name = f"router-{secrets.token_hex(4)}"
    api.create("FineTuneJob", name, JOB)
    if taken:
        api.patch("FineTuneJob", name, {"spec": changes}, query="fieldValidation=Strict")
        return
    with pytest.raises(RefusedError) as refused:
        api.patch("FineTuneJob", name, {"spec": changes}, query="fieldValidation=Strict")
    assert "changing the spec starts a new run: change spec.runId too" in refused.value.message


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"gates": [{"grader": "exact", "minimum": 0.9}]}, True),
        ({"runId": "2", "dataset": {"limitExamples": 10}}, True),
        ({"dataset": {"limitExamples": 10}}, False),
        ({"generation": {"maxTokens": 10}}, False),
        ({"baseline": {"model": {"uri": "s3://models/base"}}}, False),
        ({"graders": [{**GRADER, "stringCheck": {"operation": "Ne"}}]}, False),
    ],
    ids=str,
)
def test_a_change_of_what_is_measured_needs_another_run_id(api: Api, changes: dict[str, Any], taken: bool) -> None:
    name = f"router-{secrets.token_hex(4)}"
    api.create("Evaluation", name, EVALUATION)
    if taken:
        api.patch("Evaluation", name, {"spec": changes})
        return
    with pytest.raises(RefusedError, match=r"changing what is measured starts a new run: change spec\.runId too"):
        api.patch("Evaluation", name, {"spec": changes})


# What the API server fills in, and what a person sees.


def test_the_simplest_job_is_completed_with_its_defaults(api: Api) -> None:
    spec = api.create("FineTuneJob", "router", JOB, query=DRY_RUN)["spec"]
    assert spec["adapter"] == {"type": "LoRA"}
    assert (spec["method"], spec["runId"], spec["suspend"], spec["retryLimit"]) == ({"type": "SFT"}, "1", False, 3)
    assert spec["parallelism"] == {"nodes": 1, "processesPerNode": 1, "strategy": "DDP"}
    assert spec["checkpoints"] == {"keep": 3, "startOverIfCorrupt": False}
    assert spec["hyperparameters"] == {}
    assert spec["dataset"]["prepare"] == {
        "duplicates": "Keep",
        "nearDuplicates": "Keep",
        "conflicts": "Keep",
        "leaks": "Keep",
        "tooLong": "Truncate",
    }


def test_the_member_of_a_union_is_completed_with_its_defaults(api: Api) -> None:
    spec = api.create("FineTuneJob", "router", {**JOB, "adapter": {"lora": {"rank": 8}}}, query=DRY_RUN)["spec"]
    lora = {"rank": 8, "alpha": 32, "dropout": 0, "targetModules": ["all-linear"]}
    assert spec["adapter"] == {"type": "LoRA", "lora": lora}


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": {"cpu": 4, "memory": "16Gi"}},
        {"resources": {"cpu": "1.5", "memory": "2e9"}, "accelerator": {"memory": "80G"}},
        {"storage": {"bucket": "my.models", "serviceAccountName": "storage.team-a"}},
        {"scheduling": {"priorityClassName": "system-node-critical", "queueName": "gpus.a", "runtimeClassName": "n.v"}},
        {"scheduling": {"nodeSelector": {"topology.kubernetes.io/zone": "eu-1", "disk": ""}}},
        {"scheduling": {"tolerations": [{"operator": "Exists"}]}},
        {"scheduling": {"tolerations": [{"key": "nvidia.com/gpu", "value": "A100", "effect": "NoSchedule"}]}},
        {
            "scheduling": {
                "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]
            }
        },
    ],
    ids=str,
)
def test_what_kubernetes_takes_a_class_takes(api: Api, changes: Object) -> None:
    spec = api.create("FineTuneClass", "good", {**CLASS, **changes}, query=DRY_RUN)["spec"]
    assert FineTuneClassSpec.from_wire(spec), "and so does the operator"


CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Valid",
    "message": "",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-11-22T12:00:00Z",
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "Yes"}, ["status.conditions[0].status", '"True", "False", "Unknown"']),
        ({"reason": ""}, ["status.conditions[0].reason"]),
        ({"reason": "not one word"}, ["status.conditions[0].reason"]),
        ({"lastTransitionTime": "soon"}, ["status.conditions[0].lastTransitionTime", "date-time"]),
        ({"observedGeneration": -1}, ["status.conditions[0].observedGeneration"]),
        ({"type": "not a type"}, ["status.conditions[0].type"]),
        ({"message": None}, ["status.conditions[0].message: Required value"]),
    ],
    ids=str,
)
def test_a_condition_is_one_of_kubernetes(api: Api, change: Object, told: list[str]) -> None:
    """metav1.Condition, whoever writes it."""
    name = f"router-{secrets.token_hex(4)}"
    api.create("FineTuneJob", name, JOB)
    api.put_status("FineTuneJob", name, {"conditions": [CONDITION]})
    wrong = {field: value for field, value in {**CONDITION, **change}.items() if value is not None}
    with pytest.raises(RefusedError) as refused:
        api.put_status("FineTuneJob", name, {"conditions": [wrong]})
    assert all(part in refused.value.message for part in told), refused.value.message


def test_kubectl_tells_a_person_which_field_is_wrong(cluster: ControlPlane, api: Api) -> None:
    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bad"},
        "spec": {**JOB, "adaptor": {"type": "LoRA"}},
    }
    done = subprocess.run(
        [binaries(["kubectl"])["kubectl"], "--kubeconfig", cluster.kubeconfig, "-n", api.namespace, "apply", "-f", "-"],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert 'unknown field "spec.adaptor"' in done.stderr


def kubectl(cluster: ControlPlane, api: Api, *arguments: str) -> str:
    command = [binaries(["kubectl"])["kubectl"], "--kubeconfig", cluster.kubeconfig, "-n", api.namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def table(text: str) -> dict[str, str]:
    """The first row of what `kubectl get` prints, by column."""
    head, row = text.splitlines()[:2]
    starts = [place for place, letter in enumerate(head) if letter != " " and head[max(0, place - 2) : place].isspace()]
    starts = [0, *starts]
    ends = [*starts[1:], len(row) + 1]
    return {head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def test_kubectl_get_shows_what_a_person_looks_for(cluster: ControlPlane, api: Api) -> None:
    name = f"router-{secrets.token_hex(4)}"
    api.create("FineTuneJob", name, JOB)
    progress = {"step": 3, "totalSteps": 7, "percent": 42, "loss": 0.5, "estimatedRemaining": "12m"}
    ready = {**CONDITION, "status": "False", "reason": "Training", "message": "Attempt 2 trains on 1 node."}
    status = {"phase": "Training", "className": "gpus", "runId": "1", "conditions": [ready]}
    attempt = {"number": 2, "retries": 1, "disruptions": 0}
    api.put_status("FineTuneJob", name, {**status, "progress": progress, "attempt": attempt})
    narrow = table(kubectl(cluster, api, "get", "ftj", name))
    shown = {"PHASE": "Training", "REASON": "Training", "STEP": "3", "OF": "7", "LOSS": "0.5", "ETA": "12m"}
    assert {**shown, "NAME": name, "CLASS": "gpus", "AGE": narrow["AGE"]} == narrow
    wide = table(kubectl(cluster, api, "get", "ftj", name, "-o", "wide"))
    assert narrow.keys() < wide.keys()
    assert (wide["ATTEMPT"], wide["MODEL"], wide["METHOD"]) == ("2", "s3://models/base", "SFT")
    assert wide["DATASET"] == "s3://data/train.jsonl"
    assert wide["MESSAGE"] == "Attempt 2 trains on 1 node."
    assert f"finetunejob.finetune.dev/{name}" in kubectl(cluster, api, "get", "finetune", "-o", "name")
    assert "Rank of the two matrices" in kubectl(cluster, api, "explain", "ftj.spec.adapter.lora")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_api_server_finds_no_fault_with_the_crd(api: Api, kind: Any) -> None:
    found = api.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.{GROUP}")
    states = {condition["type"]: condition["status"] for condition in found["status"]["conditions"]}
    assert states == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("kind", ["StringCheck", "TextSimilarity", "ToolCall"])
def test_a_grader_whose_fields_all_have_defaults_needs_no_block(api: Api, kind: str) -> None:
    assert api.create("Evaluation", "good", {**EVALUATION, "graders": [{"name": "exact", "type": kind}]}, query=DRY_RUN)
