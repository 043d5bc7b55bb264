"""What a FineTuneClass adds to Pods: registries, a hub, variables, placement, and settings for single roles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.pod_contracts.run import NamedModel
from finetune_operator.evaluation.objects import evaluate_objects
from finetune_operator.finetuneclass.resolve import ResolvedClass, resolve_class
from finetune_operator.finetunejob.objects import attempt_objects
from finetune_operator.kube.resources import Object
from tests.unit.operator.evaluation_states import EVALUATION, evaluation_spec
from tests.unit.operator.pods.test_builders import ROLES, children, containers, pod_spec
from tests.unit.operator.states import attempt_of, job_spec, resolved_class


def variables(container: Object) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container.get("env", [])}


def test_images_are_pulled_with_the_secrets_that_the_class_names() -> None:
    made = children(images={"trainer": "registry/trainer:1", "pullSecretNames": ["registry", "mirror"]})
    for role in ROLES:
        assert pod_spec(made[role])["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]


def test_the_hub_and_its_token_are_where_models_are_read_and_nowhere_else() -> None:
    made = children(hub={"endpoint": "https://mirror/hub", "tokenSecretName": "hub-token"})
    for role in ROLES:
        spec = pod_spec(made[role])
        (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "hub-token"]
        assert volume["secret"] == {
            "secretName": "hub-token",
            "items": [{"key": "HF_TOKEN", "path": "HF_TOKEN"}],
            "optional": True,
            "defaultMode": 0o440,
        }
        for container in containers(spec):
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            if container["name"] == "server":
                assert "hub-token" not in mounts and not variables(container)
            else:
                file = variables(container)["HF_TOKEN_PATH"]
                assert file == f"{mounts['hub-token']}/HF_TOKEN"
                assert variables(container)["HF_ENDPOINT"] == "https://mirror/hub"


def test_the_classs_variables_are_in_every_container_but_never_replace_ours() -> None:
    asked = [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "OMP_NUM_THREADS", "value": "3"}]
    made = children(env=[*asked, {"name": "RENDEZVOUS_HOST", "value": "elsewhere"}])
    for role in ROLES:
        for container in containers(pod_spec(made[role])):
            assert variables(container)["HTTPS_PROXY"] == "http://proxy:3128"
            assert variables(container)["OMP_NUM_THREADS"] == "3"
            names = [one["name"] for one in container["env"]]
            assert len(names) == len(set(names))
    (trainer,) = containers(pod_spec(made["train"]))
    assert variables(trainer)["RENDEZVOUS_HOST"] != "elsewhere"


def test_shared_memory_may_be_limited() -> None:
    made = children(resources={"sharedMemory": "2Gi"})
    limits = {
        role: volume["emptyDir"].get("sizeLimit")
        for role in ROLES
        for volume in pod_spec(made[role])["volumes"]
        if volume["name"] == "shm"
    }
    assert limits == {"preflight": None, "train": "2Gi", "evaluate": "2Gi", "serve": "2Gi"}


def test_requirements_of_nodes_are_one_term_that_all_hold() -> None:
    asked = [
        {"key": "zone", "operator": "In", "values": ["a", "b"]},
        {"key": "spot", "operator": "DoesNotExist"},
    ]
    made = children(scheduling={"nodeRequirements": asked})
    for role in ("train", "evaluate", "serve"):
        (term,) = pod_spec(made[role])["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        assert [one["operator"] for one in term["matchExpressions"]] == ["In", "DoesNotExist"]
    assert "affinity" not in pod_spec(made["preflight"])


@pytest.mark.parametrize("policy", ["Required", "Preferred"])
def test_a_gang_is_kept_together_by_its_own_jobs_name(policy: str) -> None:
    topology = {"topologyKey": "topology.kubernetes.io/zone", "policy": policy}
    class_ = resolved_class(scheduling={"gangTopology": topology})
    objects = attempt_objects(attempt_of(job_spec(parallelism={"nodes": 2}), class_))
    terms = pod_spec(objects)["affinity"]["podAffinity"][f"{policy.lower()}DuringSchedulingIgnoredDuringExecution"]
    term = terms[0] if policy == "Required" else terms[0]["podAffinityTerm"]
    assert term["topologyKey"] == topology["topologyKey"]
    assert term["labelSelector"] == {"matchLabels": {"batch.kubernetes.io/job-name": objects[-1]["metadata"]["name"]}}
    alone = attempt_objects(attempt_of(job_spec(), class_))
    assert "affinity" not in pod_spec(alone)


RDMA = [{"resourceName": "rdma/hca", "countPerNode": 4}]


@pytest.mark.parametrize(
    ("of_class", "limits"),
    [
        ({}, {"train": {"nvidia.com/gpu": "8", "rdma/hca": "4"}, "serve": {"nvidia.com/gpu": "8"}}),
        (
            {"serving": {"accelerator": {"countPerNode": 1}}},
            {"serve": {"nvidia.com/gpu": "1"}, "evaluate": {"nvidia.com/gpu": "8"}},
        ),
        (
            {"evaluation": {"accelerator": {"resourceName": "nvidia.com/mig-1g.10gb", "countPerNode": 2}}},
            {"evaluate": {"nvidia.com/mig-1g.10gb": "2"}, "serve": {"nvidia.com/gpu": "8"}},
        ),
        ({"serving": {"accelerator": {"countPerNode": 0}}}, {"serve": {}}),
        (
            {"accelerator": None, "serving": {"accelerator": {"resourceName": "a/b", "countPerNode": 1}}},
            {"serve": {"a/b": "1"}, "train": {}},
        ),
    ],
)
def test_evaluation_and_serving_may_have_other_accelerators(
    of_class: dict[str, Any], limits: dict[str, dict[str, str]]
) -> None:
    made = children(**{"accelerator": {"countPerNode": 8, "additionalResources": RDMA}, **of_class})
    for role, expected in limits.items():
        found = pod_spec(made[role])["containers"][0]["resources"]["limits"]
        assert {name: count for name, count in found.items() if "/" in name} == expected


def test_evaluation_and_serving_may_have_their_own_resources_and_nodes() -> None:
    own = {
        "resources": {"cpu": 1, "memory": "1Gi", "ephemeralStorage": "9Gi"},
        "scheduling": {"nodeSelector": {"pool": "small"}},
    }
    made = children(serving=own, scheduling={"nodeSelector": {"pool": "gpus"}}, resources={"memory": "64Gi"})
    for role, memory, pool in (("serve", "1Gi", "small"), ("evaluate", "64Gi", "gpus"), ("train", "64Gi", "gpus")):
        spec = pod_spec(made[role])
        assert spec["nodeSelector"] == {"pool": pool}
        assert {container["resources"]["limits"]["memory"] for container in containers(spec)} == {memory}


def test_a_class_without_these_settings_makes_the_pods_that_it_made_before() -> None:
    """Otherwise an upgrade of the operator would restart every model that serves."""
    text = json.dumps(children())
    assert not [
        word for word in ("imagePullSecrets", "affinity", "hub-token", "HF_", 'sizeLimit": null') if word in text
    ]
    assert "env" not in containers(pod_spec(children()["serve"]))[1]


def test_pull_secrets_also_hold_for_the_image_that_the_operator_was_started_with() -> None:
    storage = {"bucket": "models", "credentialsSecretName": "s3"}
    item = {
        "metadata": {"name": "c", "generation": 1, "uid": "u"},
        "spec": {"storage": storage, "images": {"pullSecretNames": ["registry"]}},
    }
    resolved = resolve_class(item, "registry/trainer:1")
    assert isinstance(resolved, ResolvedClass)
    images = resolved.spec.images
    assert (images.trainer, images.pull_secret_names) == ("registry/trainer:1", ["registry"])


def test_an_evaluation_that_loads_no_model_reads_its_dataset_from_the_classs_hub() -> None:
    class_ = resolved_class(hub={"endpoint": "https://mirror/hub", "tokenSecretName": "hub-token"})
    outputs = NamedModel(name="given", outputs_uri="hf://datasets/org/outputs")
    (container,) = containers(pod_spec(evaluate_objects(EVALUATION, evaluation_spec(), class_, [outputs], "e-1")))
    assert variables(container)["HF_ENDPOINT"] == "https://mirror/hub"
    assert "hub-token" in [mount["name"] for mount in container["volumeMounts"]]
