"""The Pods that children run: locked down, with nothing in them that a user could inject."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.pod_contracts.run import (
    METRICS_PORT,
    RUN_DIGEST_VARIABLE,
    CheckpointSource,
    EvaluateRun,
    FetchRun,
    ModelSource,
    NamedModel,
    PreflightRun,
    TrainRun,
)
from finetune_operator.core.ownership import labels
from finetune_operator.evaluation.objects import evaluate_objects
from finetune_operator.finetunejob.objects import attempt_objects, preflight_objects
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.objects import serving_objects
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.deployment_states import DEPLOYMENT
from tests.unit.operator.evaluation_states import EVALUATION, evaluation_spec, tuned
from tests.unit.operator.states import MODEL_SOURCE, OWNER, attempt_of, files_of, job_spec, resolved_class, template_of

PYTHON = {"name": "code", "type": "Python", "python": {"source": "def grade(sample, item): return 1"}}
ENDPOINT = ProgressEndpoint("https://finetune.svc:8443", "PEM")


def children(endpoint: ProgressEndpoint | None = ENDPOINT, **of_class: Any) -> dict[str, list[Object]]:
    """What is made in each role, for a class."""
    class_, spec = resolved_class(**of_class), job_spec(parallelism={"nodes": 2})
    loaded = NamedModel(name="tuned", model=tuned().source)
    return {
        "preflight": preflight_objects(OWNER, spec, class_, MODEL_SOURCE, 1),
        "train": attempt_objects(attempt_of(spec, class_, endpoint=endpoint)),
        "evaluate": evaluate_objects(EVALUATION, evaluation_spec(), class_, [loaded], "evaluate-1"),
        "evaluate-python": evaluate_objects(
            EVALUATION, evaluation_spec(graders=[PYTHON], gates=[]), class_, [loaded], "evaluate-2"
        ),
        "serve": serving_objects(DEPLOYMENT, 1, class_, tuned().source, {}),
    }


def pod_spec(objects: list[Object]) -> Object:
    (workload,) = [item for item in objects if item["kind"] in ("Pod", "Job", "Deployment")]
    spec: Object = template_of(workload)["spec"]
    return spec


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


ROLES = ("preflight", "train", "evaluate", "serve")
EVERY = (*ROLES, "evaluate-python")


@pytest.mark.parametrize("role", EVERY)
def test_pods_pass_the_restricted_pod_security_standard(role: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    spec = pod_spec(children()[role])
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {key for volume in spec["volumes"] for key in volume} <= {
        "name",
        "configMap",
        "downwardAPI",
        "emptyDir",
        "projected",
        "secret",
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in containers(spec):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True


WITH_AN_IDENTITY = {"credentialsSecretName": None, "serviceAccountName": "pod-identity"}


@pytest.mark.parametrize("storage", [{}, WITH_AN_IDENTITY], ids=["a Secret", "a service account"])
@pytest.mark.parametrize("role", EVERY)
def test_pods_have_no_token_of_the_api_server(role: str, storage: dict[str, Any]) -> None:
    spec = pod_spec(children(storage=storage)[role])
    assert spec["automountServiceAccountToken"] is False
    audiences = [
        source["serviceAccountToken"]["audience"]
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
    ]
    assert audiences == (["finetune.dev/progress"] if role == "train" else [])


@pytest.mark.parametrize(("role", "limit"), [("preflight", "1Gi"), ("train", "7Gi"), ("serve", "7Gi")])
def test_a_pod_fills_no_more_of_its_nodes_disk_than_the_class_says(role: str, limit: str) -> None:
    of_class = {
        "resources": {"ephemeralStorage": "7Gi"},
        "preflight": {"resources": {"ephemeralStorage": "1Gi"}},
    }
    spec = pod_spec(children(**of_class)[role])
    on_disk = [
        volume["emptyDir"] for volume in spec["volumes"] if "medium" not in volume.get("emptyDir", {"medium": 0})
    ]
    assert on_disk
    assert all(found == {"sizeLimit": limit} for found in on_disk)
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        for asked in ("requests", "limits"):
            assert container["resources"][asked]["ephemeral-storage"] == limit


def test_without_an_endpoint_a_training_pod_has_no_token_at_all() -> None:
    spec = pod_spec(children(endpoint=None)["train"])
    assert "progress-token" not in json.dumps(spec)


@pytest.mark.parametrize(
    ("role", "limits"),
    [
        ("preflight", {"memory": "2Gi", "ephemeral-storage": "10Gi"}),
        ("train", {"memory": "4Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "8"}),
        ("evaluate", {"memory": "4Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "8"}),
        ("serve", {"memory": "4Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "8"}),
    ],
)
def test_only_what_computes_asks_for_accelerators(role: str, limits: dict[str, str]) -> None:
    spec = pod_spec(children(accelerator={"countPerNode": 8})[role])
    assert spec["containers"][0]["resources"]["limits"] == limits


def test_credentials_come_from_the_jobs_own_secret_and_never_through_the_operator() -> None:
    text = json.dumps(children(storage={"credentialsSecretName": "my-secret"}))
    assert '"secret": {"secretName": "my-secret", "defaultMode": 288}' in text  # files of mode 0440
    assert "secretKeyRef" not in text
    identity = children(storage=WITH_AN_IDENTITY)
    for objects in identity.values():
        assert "secretName" not in json.dumps(objects)
        assert pod_spec(objects)["serviceAccountName"] == "pod-identity"


def test_the_class_says_where_pods_run() -> None:
    scheduling = {
        "nodeSelector": {"pool": "gpus"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "batch",
        "runtimeClassName": "nvidia",
        "queueName": "team-queue",
    }
    made = children(scheduling=scheduling)
    for role in ("train", "evaluate", "serve"):
        spec = pod_spec(made[role])
        assert spec["nodeSelector"] == {"pool": "gpus"}
        assert spec["tolerations"] == scheduling["tolerations"]
        assert (spec["priorityClassName"], spec["runtimeClassName"]) == ("batch", "nvidia")
    queued = [
        role
        for role, objects in made.items()
        if any("kueue.x-k8s.io/queue-name" in item["metadata"]["labels"] for item in objects)
    ]
    assert queued == ["train", "evaluate", "evaluate-python"], "what needs accelerators"


def test_preflight_is_cheap_and_runs_on_any_node_that_it_may() -> None:
    of_class: dict[str, Any] = {
        "resources": {"cpu": "32", "memory": "512Gi"},
        "scheduling": {
            "nodeSelector": {"pool": "gpus"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "batch",
            "runtimeClassName": "nvidia",
        },
    }
    spec = pod_spec(children(**of_class)["preflight"])
    cheap = {"cpu": "500m", "memory": "2Gi", "ephemeral-storage": "10Gi"}
    assert spec["containers"][0]["resources"]["requests"] == cheap
    assert not {"nodeSelector", "runtimeClassName"} & spec.keys()
    assert (spec["tolerations"], spec["priorityClassName"]) == (of_class["scheduling"]["tolerations"], "batch")
    own: dict[str, Any] = {"resources": {"cpu": "2", "memory": "8Gi"}, "scheduling": {"nodeSelector": {"pool": "cpus"}}}
    spec = pod_spec(children(**of_class, preflight=own)["preflight"])
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "8Gi", "ephemeral-storage": "10Gi"}
    assert spec["nodeSelector"] == {"pool": "cpus"}
    assert not {"tolerations", "priorityClassName"} & spec.keys()


def test_preflight_is_a_pod_that_its_job_controls_and_that_no_queue_holds_back() -> None:
    (pod,) = children(podMetadata={"labels": {"kueue.x-k8s.io/queue-name": "tuning"}})["preflight"]
    assert (pod["apiVersion"], pod["kind"], pod["spec"]["restartPolicy"]) == ("v1", "Pod", "Never")
    (by,) = pod["metadata"]["ownerReferences"]
    assert (by["kind"], by["uid"], by["controller"]) == ("FineTuneJob", OWNER.uid, True)
    assert "kueue.x-k8s.io/queue-name" not in pod["metadata"]["labels"]


def test_no_job_is_without_a_deadline_that_kubernetes_keeps() -> None:
    made = children()
    deadlines = {role: made[role][-1]["spec"]["activeDeadlineSeconds"] for role in ("preflight", "train", "evaluate")}
    assert deadlines == {"preflight": 6 * 3600, "train": 60 * 24 * 3600, "evaluate": 24 * 3600}
    (*_, train) = attempt_objects(attempt_of(class_deadline_seconds=7200))
    assert train["spec"]["activeDeadlineSeconds"] == 7200 + 3600, "the operator ends the run first, with a word"


def test_pods_are_found_by_the_name_of_what_they_are_for() -> None:
    for objects in children().values():
        template = next(template_of(item) for item in objects if item["kind"] in ("Pod", "Job", "Deployment"))
        _, _, name = template["metadata"]["annotations"]["finetune.dev/owner"].partition("/")
        assert template["metadata"]["labels"]["finetune.dev/name"] == name
    long = replace(OWNER, name="a" * 62 + "-" + "b" * 40)
    assert labels(long, "train")["finetune.dev/name"] == "a" * 62


def test_meshes_leave_alone_what_runs_to_an_end() -> None:
    made = children()
    for role in ("preflight", "train", "evaluate"):
        metadata = template_of(made[role][-1])["metadata"]
        assert metadata["labels"]["sidecar.istio.io/inject"] == "false"
        assert metadata["annotations"]["linkerd.io/inject"] == "disabled"
    assert "istio" not in json.dumps(made["serve"])


def test_a_class_may_let_pods_into_a_mesh_and_labels_them() -> None:
    """In whichever place a mesh is spoken to, nothing of ours contradicts it in the other one."""
    made = children(
        podMetadata={
            "labels": {"sidecar.istio.io/inject": "true", "example.com/team": "a", "finetune.dev/role": "forged"},
            "annotations": {"linkerd.io/inject": "enabled"},
        }
    )
    for role in ROLES:
        metadata = template_of(made[role][-1 if role != "serve" else 1])["metadata"]
        assert metadata["labels"]["sidecar.istio.io/inject"] == "true"
        assert "sidecar.istio.io/inject" not in metadata["annotations"]
        assert metadata["annotations"]["linkerd.io/inject"] == "enabled"
        assert metadata["labels"]["example.com/team"] == "a"
        assert metadata["labels"]["finetune.dev/role"] == role
        assert role == "serve" or metadata["labels"]["kuma.io/sidecar-injection"] == "disabled"


def test_a_gang_is_an_indexed_job_that_tries_once() -> None:
    service, job = children()["train"]
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (
        "Indexed",
        2,
        2,
        0,
    )
    template = spec["template"]
    assert template["spec"]["restartPolicy"] == "Never"
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    environment = {item["name"]: item.get("value") for item in template["spec"]["containers"][0]["env"]}
    assert environment["RENDEZVOUS_HOST"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_a_rank_alone_in_its_pod_takes_as_many_threads_as_cpus_it_asks_for() -> None:
    job = children()["train"][-1]
    variables = {item["name"]: item for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    field = variables["OMP_NUM_THREADS"]["valueFrom"]["resourceFieldRef"]
    assert field == {"resource": "requests.cpu", "divisor": "1"}


@pytest.mark.parametrize(
    ("role", "model"),
    [("preflight", PreflightRun), ("train", TrainRun), ("evaluate", EvaluateRun), ("serve", FetchRun)],
)
def test_each_pod_mounts_a_run_configuration_that_parses(role: str, model: Any) -> None:
    objects = children()[role]
    if role in ("evaluate", "serve"):
        (config_map,) = [item for item in objects if item["kind"] == "ConfigMap"]
        (volume,) = [item for item in pod_spec(objects)["volumes"] if item["name"] == "run"]
        assert volume["configMap"]["name"] == config_map["metadata"]["name"]
        assert config_map["immutable"] is True
        text = config_map["data"]["run.json"]
    else:
        text = files_of(objects[-1])["run.json"]
    model.model_validate_json(text)


HOSTILE = "s3://data/$(rm -rf ~);`id`&&\"'.jsonl"


def test_an_evaluation_accepts_no_other_run_configuration_than_its_own() -> None:
    """Its ConfigMap can be replaced before the Pod starts; a Pod's annotations and variables can't."""
    config_map, made = children(env=[{"name": RUN_DIGEST_VARIABLE, "value": "sha256:another"}])["evaluate"]
    (container,) = containers(pod_spec([config_map, made]))
    variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    written = config_map["data"]["run.json"].encode()
    assert variables[RUN_DIGEST_VARIABLE] == f"sha256:{hashlib.sha256(written).hexdigest()}"


def test_what_a_user_wrote_travels_only_as_json() -> None:
    """Nothing of a Pod but the annotation that becomes run.json holds text of the spec."""
    spec = job_spec(dataset={"training": {"uri": HOSTILE.replace(" ", "+")}}, runId="it-s.mine")
    (job,) = attempt_objects(attempt_of(spec, endpoint=ENDPOINT))
    assert "rm+-rf" in files_of(job)["run.json"]
    del job["spec"]["template"]["metadata"]["annotations"]["finetune.dev/run"]
    assert "rm+-rf" not in json.dumps(job)
    assert "it-s.mine" not in json.dumps(job)


def test_a_parents_own_labels_and_annotations_are_not_copied() -> None:
    """GitOps tools track objects by them, and would prune the children."""
    allowed = {"app.kubernetes.io/managed-by", "finetune.dev/owner-uid", "finetune.dev/role", "finetune.dev/name"}
    made = children()
    of_pods = template_of(made["evaluate"][-1])["metadata"]
    for objects in made.values():
        for item in objects:
            meta, more = item["metadata"], of_pods if item["kind"] == "Pod" else {"labels": {}, "annotations": {}}
            assert meta["labels"].keys() <= allowed | more["labels"].keys()
            annotations = {"finetune.dev/owner", "finetune.dev/applied-digest", "finetune.dev/run"}
            assert meta["annotations"].keys() <= annotations | more["annotations"].keys()


def test_training_pods_alone_name_the_port_of_their_metrics() -> None:
    ports = {role: pod_spec(objects)["containers"][0].get("ports", []) for role, objects in children().items()}
    assert ports.pop("train") == [{"name": "metrics", "containerPort": METRICS_PORT}]
    assert "metrics" not in json.dumps(ports)


def test_a_checkpoint_read_back_from_the_status_is_served_by_the_same_objects() -> None:
    """The API server sorts keys and writes 0.0 as 0; other names would be another rollout."""
    adapter = {"type": "LoRA", "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targetModules": ["b", "a"]}}
    asked = CheckpointSource(uri="s3://models/step-000100", step=100, digest="sha256:100", adapter=adapter)
    stored = json.loads(json.dumps(asked.to_wire(), sort_keys=True).replace("16.0", "16").replace("0.0", "0"))
    known = CheckpointSource.from_wire(stored)
    models = [ModelSource(uri="s3://models/base", checkpoint=one) for one in (asked, known)]
    made, made_again = (serving_objects(DEPLOYMENT, 1, resolved_class(), one, {}) for one in models)
    assert made == made_again
