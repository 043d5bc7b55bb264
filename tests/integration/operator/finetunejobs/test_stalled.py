"""Each diagnosis stands within a minute, tells the fix, and clears by itself once the cause is gone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import DEPLOYMENT, EVALUATION, JOB, PREFLIGHT_REPORT
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")


def expect_stalled(api: Api, kind: str, name: str, reason: str, *told: str) -> Object:
    """Wait for a diagnosis, and that it says all this."""
    found = api.wait(kind, name, lambda item: stalled(item)[0] == reason)
    assert condition(found, "Ready")["status"] == "False"
    message = stalled(found)[1]
    assert all(part in message for part in told), message
    return found


def expect_cleared(api: Api, kind: str, name: str, reason: str) -> None:
    """Wait until nothing stalls, and for where it stands then."""
    found = api.wait_reason(kind, name, reason)
    assert stalled(found) == ("", "")


# The class.


@pytest.mark.parametrize(
    ("kind", "spec", "then"),
    [
        ("FineTuneJob", JOB, "Validating"),
        ("Evaluation", EVALUATION, "ReferenceNotFound"),
        ("ModelDeployment", DEPLOYMENT, "ReferenceNotFound"),
    ],
)
def test_a_class_that_does_not_exist(api: Api, kind: str, spec: Object, then: str) -> None:
    name = f"late-{secrets.token_hex(4)}"
    api.create(kind, "router", {**spec, "className": name})
    expect_stalled(
        api, kind, "router", "ClassNotFound", f"FineTuneClass '{name}' does not exist", "Create it", "get ftc"
    )
    api.create("FineTuneClass", name, CLASS)
    api.wait_reason(kind, "router", then)
    api.delete("FineTuneClass", name)


def test_no_class_is_the_default(api: Api) -> None:
    api.create("FineTuneJob", "router", {**JOB, "className": None})
    expect_stalled(
        api,
        "FineTuneJob",
        "router",
        "ClassNotFound",
        "Set spec.className, or annotate a class with finetune.dev/is-default",
    )
    name = f"default-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, CLASS, annotations={"finetune.dev/is-default-class": "true"})
    expect_cleared(api, "FineTuneJob", "router", "Validating")
    assert api.get("FineTuneJob", "router")["status"]["className"] == name
    api.delete("FineTuneClass", name)


@pytest.mark.parametrize(
    ("spec", "refusing", "reason", "told"),
    [
        (
            {},
            {"sources": {"datasets": ["s3://public/*"]}},
            "SourceNotAllowed",
            ["dataset 's3://data/train.jsonl'", "it allows s3://public/*", "spec.sources.datasets"],
        ),
        ({}, {"limits": {"nodes": 1}}, "LimitExceeded", ["spec.parallelism.nodes is 2", "allows 1"]),
        (
            {"activeDeadlineSeconds": 7200},
            {"limits": {"activeDeadlineSeconds": 3600}},
            "LimitExceeded",
            ["activeDeadlineSeconds is 7200", "allows 3600"],
        ),
    ],
    ids=["source", "nodes", "deadline"],
)
def test_what_the_class_refuses_and_then_allows(
    api: Api, spec: Object, refusing: dict[str, Any], reason: str, told: list[str]
) -> None:
    name = f"strict-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, **refusing})
    api.create("FineTuneJob", "router", {**JOB, **spec, "className": name})
    expect_stalled(api, "FineTuneJob", "router", reason, *told)
    api.patch("FineTuneClass", name, {"spec": {"sources": CLASS["sources"], "limits": None}})
    expect_cleared(api, "FineTuneJob", "router", "Validating")
    api.delete("FineTuneClass", name)


# The Pods. What the kubelet says of them is played.


@pytest.mark.parametrize(
    ("waiting", "message", "reason", "told"),
    [
        (
            "ImagePullBackOff",
            'Back-off pulling image "example.com/trainer:1"',
            "ImagePullFailed",
            ['image "example.com/trainer:1"', "Check spec.images of the FineTuneClass"],
        ),
        (
            "CreateContainerError",
            "context deadline exceeded",
            "PodRejected",
            ["CreateContainerError: context deadline"],
        ),
    ],
)
def test_a_pod_that_does_not_start(api: Api, waiting: str, message: str, reason: str, told: list[str]) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.waits(api, pod, waiting, message)
    expect_stalled(api, "FineTuneJob", "router", reason, pod["metadata"]["name"], *told)
    played.runs(api, pod)
    expect_cleared(api, "FineTuneJob", "router", "Validating")


def test_a_secret_that_is_missing(api: Api) -> None:
    """Its volume can't be mounted, which only an Event tells. Takes half a minute: a Pod gets that long to start."""
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.is_placed(api, pod)
    said = 'MountVolume.SetUp failed for volume "storage-credentials" : secret "s3-credentials" not found'
    played.is_warned_of(api, pod, "FailedMount", said)
    expect_stalled(
        api,
        "FineTuneJob",
        "router",
        "SecretNotFound",
        pod["metadata"]["name"],
        'secret "s3-credentials" not found',
        "Create that Secret in this namespace",
        "AWS_SECRET_ACCESS_KEY",
    )
    played.runs(api, pod)
    expect_cleared(api, "FineTuneJob", "router", "Validating")


def test_a_pod_for_which_there_is_no_node(api: Api) -> None:
    """The scheduler's words are real; that they are half a minute old is played."""
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    name = pod["metadata"]["name"]
    api.wait("Pod", name, lambda found: condition(found, "PodScheduled").get("reason") == "Unschedulable")
    said = condition(api.get("Pod", name), "PodScheduled")
    old = {**said, "lastTransitionTime": f"{datetime.now(UTC) - timedelta(seconds=31):%Y-%m-%dT%H:%M:%SZ}"}
    api.patch("Pod", name, {"status": {"conditions": [old]}}, "status")
    wake(api, "FineTuneJob", "router")
    expect_stalled(api, "FineTuneJob", "router", "Unschedulable", said["message"], "Free or add nodes")
    played.runs(api, pod)
    api.patch("Pod", name, {"status": {"conditions": []}}, "status")
    expect_cleared(api, "FineTuneJob", "router", "Validating")


@pytest.fixture
def small_node(api: Api) -> Iterator[str]:
    """A node of one CPU, most of which a Pod has, and which nobody else's Pods may use."""
    name = f"small-{secrets.token_hex(4)}"
    taints = [{"key": "test", "value": name, "effect": "NoSchedule"}]
    node = {"metadata": {"name": name, "labels": {"test": name}}, "spec": {"taints": taints}}
    api.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", **node})
    room = {"cpu": "1", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "10"}
    status = {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}
    path = f"/api/v1/nodes/{name}"
    api.request("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")
    resources = {"requests": {"cpu": "800m"}}
    spec = {"nodeName": name, "containers": [{"name": "a", "image": "a", "resources": resources}]}
    pod = {"metadata": {"name": "occupant"}, "spec": {**spec, "tolerations": [{"operator": "Exists"}]}}
    api.request("POST", api.path("Pod"), {"apiVersion": "v1", "kind": "Pod", **pod})
    yield name
    api.request("DELETE", path)


def test_a_node_that_is_full_is_waited_for_and_one_that_is_too_small_is_not(api: Api, small_node: str) -> None:
    """The scheduler's words are real; that they are half a minute old is played."""
    name = f"small-{secrets.token_hex(4)}"
    scheduling = {"nodeSelector": {"test": small_node}, "tolerations": [{"operator": "Exists"}]}
    api.create("FineTuneClass", name, {**CLASS, "preflight": {"scheduling": scheduling}})
    job = api.create("FineTuneJob", "router", {**JOB, "className": name})
    waits_for_long(api, job)
    queued = api.wait_reason("FineTuneJob", "router", "Queued")
    assert stalled(queued) == ("", "")
    assert "Insufficient cpu" in condition(queued, "Ready")["message"]
    before = {item["metadata"]["uid"] for item in api.children_of(job, "preflight", "Pod")}

    api.patch("FineTuneClass", name, {"spec": {"preflight": {"resources": {"cpu": "2"}}}})

    def is_made_anew() -> bool:
        return before.isdisjoint(item["metadata"]["uid"] for item in api.wait_children(job, "preflight", "Pod"))

    wait_for(is_made_anew, "the Pod is made anew")
    waits_for_long(api, job)
    expect_stalled(api, "FineTuneJob", "router", "Unschedulable", "Insufficient cpu", "Preemption is not helpful")
    api.delete("FineTuneClass", name)


def waits_for_long(api: Api, job: Object) -> None:
    """The scheduler has no node for the preflight's Pod, and says so; it is played that this is half a minute old."""

    def unplaced() -> list[Object]:
        pods = [pod for pod in api.children_of(job, "preflight", "Pod") if "deletionTimestamp" not in pod["metadata"]]
        return [pod for pod in pods if condition(pod, "PodScheduled").get("reason") == "Unschedulable"]

    wait_for(lambda: len(unplaced()) == 1, "a Pod that is not placed")
    (pod,) = unplaced()
    moment = f"{datetime.now(UTC) - timedelta(seconds=31):%Y-%m-%dT%H:%M:%SZ}"
    old = {**condition(pod, "PodScheduled"), "lastTransitionTime": moment}
    api.patch("Pod", pod["metadata"]["name"], {"status": {"conditions": [old]}}, "status")
    wake(api, "FineTuneJob", "router")


SETS = ("training", "validation")
LONG_ADAPTER: Object = {
    "type": "LoRA",
    "lora": {"targetModules": [f"layer-{number}.{'x' * 200}" for number in range(64)]},
}


# What the API server refuses. All of it is real.


def test_a_run_configuration_that_is_too_large_for_the_annotations_of_its_pods(api: Api) -> None:
    """256 KiB in all, with those of the class."""
    name = f"large-{secrets.token_hex(4)}"
    storage = {**CLASS["storage"], "caBundle": f"-----BEGIN CERTIFICATE-----\n{'x' * 65_000}"}
    annotations = {f"example.com/{number}": "x" * 4096 for number in range(16)}
    api.create("FineTuneClass", name, {**CLASS, "storage": storage, "podMetadata": {"annotations": annotations}})
    files = {name: {"uris": [f"s3://data/{number}{'x' * 1000}" for number in range(64)]} for name in SETS}
    api.create("FineTuneJob", "router", {**JOB, "className": name, "dataset": files, "adapter": LONG_ADAPTER})
    expect_stalled(
        api, "FineTuneJob", "router", "PodRejected", "may not be more than 262144 bytes", "shorten spec.dataset"
    )
    shorter = {"spec": {"podMetadata": {"annotations": None}, "storage": {"caBundle": None}}}
    api.patch("FineTuneClass", name, shorter)
    wait_for(lambda: bool(api.items("Pod")), "preflight starts")
    api.delete("FineTuneClass", name)


def test_a_quota_that_leaves_no_room_for_pods(api: Api) -> None:
    """Takes a minute: that is how often the operator tries again."""
    api.create("ResourceQuota", "none", {"hard": {"pods": "0"}})
    wait_for(lambda: "used" in api.get("ResourceQuota", "none").get("status", {}), "the quota is counted")
    job = api.create("FineTuneJob", "router", JOB)
    expect_stalled(
        api,
        "FineTuneJob",
        "router",
        "QuotaExceeded",
        "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0",
        "is too small, even while nothing else runs",
        "Raise it, or lower what",
    )
    api.delete("ResourceQuota", "none")
    expect_pod(api, job)
    expect_cleared(api, "FineTuneJob", "router", "Validating")


@pytest.mark.parametrize(
    ("change", "repair", "told"),
    [
        (
            {"scheduling": {"priorityClassName": "late"}},
            ("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "late"}, "value": 1}),
            ["no PriorityClass with name late was found", "scheduling.priorityClassName of the FineTuneClass"],
        ),
        (
            {"storage": {"bucket": "models", "serviceAccountName": "late"}},
            ("/api/v1/namespaces/{}/serviceaccounts", {"metadata": {"name": "late"}}),
            ['serviceaccount "late" not found', "storage.serviceAccountName of the FineTuneClass"],
        ),
    ],
    ids=["PriorityClass", "ServiceAccount"],
)
def test_pods_that_admission_refuses_stall_the_job_until_that_is_mended(
    api: Api, change: Object, repair: tuple[str, Object], told: list[str]
) -> None:
    """Takes a minute: that is how often the operator tries again."""
    name = f"refused-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, **change})
    job = api.create("FineTuneJob", "router", {**JOB, "className": name})
    expect_stalled(api, "FineTuneJob", "router", "PodRejected", *told)
    path, body = repair
    api.request("POST", path.format(api.namespace), body)
    expect_pod(api, job)
    expect_cleared(api, "FineTuneJob", "router", "Validating")
    api.delete("FineTuneClass", name)


def expect_pod(api: Api, job: Object) -> None:
    """The operator tries again once a minute. The Pod then runs."""
    wait_for(lambda: bool(api.children_of(job, "preflight", "Pod")), "the preflight has its Pod", seconds=90)
    (pod,) = api.children_of(job, "preflight", "Pod")
    played.runs(api, pod)


def test_a_quota_that_leaves_no_room_for_a_job(api: Api) -> None:
    api.create("ResourceQuota", "none", {"hard": {"count/jobs.batch": "0"}})
    wait_for(lambda: "used" in api.get("ResourceQuota", "none").get("status", {}), "the quota is counted")
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.ends(api, pod, PREFLIGHT_REPORT)
    expect_stalled(
        api,
        "FineTuneJob",
        "router",
        "QuotaExceeded",
        "exceeded quota: none",
        "limited: count/jobs.batch=0",
        "every minute",
    )
    api.delete("ResourceQuota", "none")
    wait_for(lambda: _is_free(api), "the quota is gone")
    wake(api, "FineTuneJob", "router")
    expect_cleared(api, "FineTuneJob", "router", "Queued")


def _is_free(api: Api) -> bool:
    """Whether the API server's admission has seen that the quota is gone."""
    try:
        probe = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}}
        body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "probe"}, "spec": probe}
        api.request("POST", f"{api.path('Job')}?dryRun=All", body)
    except RefusedError:
        return False
    return True


def wake(api: Api, kind: str, name: str) -> None:
    """Any change lets the operator look at once, and not only after its minute."""
    api.patch(kind, name, {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}})


# What refers to what is not there.


def test_a_reference_to_nothing_is_named_and_clears_once_it_exists(api: Api) -> None:
    api.create("Evaluation", "router", EVALUATION)
    api.create("ModelDeployment", "router", DEPLOYMENT)
    no_job = ("FineTuneJob 'router' does not exist", "Create it")
    expect_stalled(api, "Evaluation", "router", "ReferenceNotFound", *no_job)
    expect_stalled(api, "ModelDeployment", "router", "ReferenceNotFound", *no_job)
    api.create("FineTuneJob", "router", JOB)
    expect_cleared(api, "Evaluation", "router", "WaitingForModel")
    expect_cleared(api, "ModelDeployment", "router", "WaitingForModel")


def test_a_name_that_somebody_else_has(api: Api) -> None:
    api.create("Service", "router", {"ports": [{"port": 80}]})
    spec = {"className": "cpu", "model": {"uri": "s3://models/base"}}
    api.create("ModelDeployment", "router", spec)
    expect_stalled(
        api, "ModelDeployment", "router", "NameConflict", "A Service named 'router' already exists", "Delete it"
    )
    api.delete("Service", "router")
    wake(api, "ModelDeployment", "router")
    expect_cleared(api, "ModelDeployment", "router", "RollingOut")


def test_the_operator_is_told_of_a_stranger_that_names_no_parent_and_goes_on(
    api: Api, operator: OperatorProcess
) -> None:
    """A Pod of a user, with our label and an annotation that is nonsense, must not end the operator."""
    container = {"name": "a", "image": "a"}
    for number, owner in enumerate(("Nonsense/router", "FineTuneJob/../../x", "FineTuneClass/cpu")):
        meta = {
            "name": f"stranger-{number}",
            "labels": {"app.kubernetes.io/managed-by": "finetune-operator"},
            "annotations": {"finetune.dev/owner": owner},
        }
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
        api.request("POST", api.path("Pod"), body)
    api.create("FineTuneJob", "router", JOB)
    expect_cleared(api, "FineTuneJob", "router", "Validating")
    assert operator.is_running()
