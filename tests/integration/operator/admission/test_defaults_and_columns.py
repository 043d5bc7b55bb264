"""What the API server fills in, and what a person sees."""

from __future__ import annotations

import json
import secrets
import subprocess
from typing import Any

import pytest

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from finetune_api.base import GROUP
from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.kinds import KINDS
from tests.integration.operator.admission.shortest_specs import CLASS, DRY_RUN, EVALUATION, JOB
from tests.integration.operator.api import Api, Object, RefusedError

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
    ready = {**CONDITION, "status": "False", "reason": "Training", "message": "Attempt 2 is training on 1 node."}
    status = {"phase": "Training", "className": "gpus", "runId": "1", "conditions": [ready]}
    attempt = {"number": 2, "retries": 1, "disruptions": 0}
    api.put_status("FineTuneJob", name, {**status, "progress": progress, "attempt": attempt})
    narrow = table(kubectl(cluster, api, "get", "ftj", name))
    shown = {
        "PHASE": "Training",
        "REASON": "Training",
        "STEP": "3",
        "OF": "7",
        "LOSS": "0.5",
        "REWARD": "",
        "ETA": "12m",
    }
    assert {**shown, "NAME": name, "CLASS": "gpus", "AGE": narrow["AGE"]} == narrow
    wide = table(kubectl(cluster, api, "get", "ftj", name, "-o", "wide"))
    assert narrow.keys() < wide.keys()
    assert (wide["ATTEMPT"], wide["MODEL"], wide["METHOD"]) == ("2", "s3://models/base", "SFT")
    assert wide["DATASET"] == "s3://data/train.jsonl"
    assert wide["MESSAGE"] == "Attempt 2 is training on 1 node."
    assert f"finetunejob.finetune.dev/{name}" in kubectl(cluster, api, "get", "finetune", "-o", "name")
    assert "Rank of the two matrices" in kubectl(cluster, api, "explain", "ftj.spec.adapter.lora")


def test_kubectl_get_shows_how_far_an_evaluation_is(cluster: ControlPlane, api: Api) -> None:
    name = f"router-{secrets.token_hex(4)}"
    api.create("Evaluation", name, EVALUATION)
    ready = {**CONDITION, "status": "False", "reason": "Evaluating", "message": "The evaluation Pod is running."}
    progress = {"percent": 42, "estimatedRemaining": "12m", "candidates": []}
    status = {"phase": "Evaluating", "className": "gpus", "conditions": [ready], "progress": progress}
    api.put_status("Evaluation", name, status)
    narrow = table(kubectl(cluster, api, "get", "eval", name))
    assert (narrow["PHASE"], narrow["PERCENT"], narrow["ETA"]) == ("Evaluating", "42", "12m")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_api_server_finds_no_fault_with_the_crd(api: Api, kind: Any) -> None:
    found = api.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.{GROUP}")
    states = {condition["type"]: condition["status"] for condition in found["status"]["conditions"]}
    assert states == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("kind", ["StringCheck", "TextSimilarity", "ToolCall"])
def test_a_grader_whose_fields_all_have_defaults_needs_no_block(api: Api, kind: str) -> None:
    assert api.create("Evaluation", "good", {**EVALUATION, "graders": [{"name": "exact", "type": kind}]}, query=DRY_RUN)
