"""What the operator's account may not do: whoever has its token is not the cluster's administrator."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from finetune_api.pod_contracts.progress import PROGRESS_AUDIENCE
from finetune_operator.finetunejob.deletion.objects import delete_job
from tests.integration.chart.release import (
    BASE,
    DATA,
    NAMESPACE,
    PODS_BY_HAND,
    TEAM,
    WAIT_SECONDS,
    Operator,
    Release,
    account_kubeconfig,
    apply,
    start_job,
)
from tests.unit.operator.pods.test_builders import EVERY, children
from tests.unit.operator.states import OWNER, resolved_class


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"spec": {"suspend": True}}, "the operator never writes a spec"),
        ({"metadata": {"labels": {"a": "b"}}}, "the operator writes only finalizers"),
        ({"metadata": {"annotations": {"a": "b"}}}, "the operator writes only finalizers"),
        ({"metadata": {"finalizers": []}}, None),
    ],
)
def test_of_a_job_the_operator_may_write_finalizers_only(
    release: Release, platform: None, change: Mapping[str, Any], refusal: str | None
) -> None:
    apply(release, "FineTuneJob", "untouched", model={"uri": BASE}, dataset={"training": {"uri": DATA}})
    words = ("-n", TEAM, "patch", "ftj", "untouched", "--type=merge", "-p", json.dumps(change))
    done = subprocess.run(
        [release.commands["kubectl"], "--kubeconfig", account_kubeconfig(release), *words],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode == 0) == (refusal is None), done.stderr
    assert (refusal or "") in done.stderr


SWEEP = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneSweep", "name": "search", "uid": "u-1"}


TRAINING = {"model": {"uri": BASE}, "dataset": {"training": {"uri": DATA}}}
MEASURING = {
    "candidates": [{"name": "trial", "model": {"fineTuneJobRef": {"name": "trial"}}}],
    "dataset": {"uri": DATA},
    "graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}],
}


@pytest.mark.parametrize(("kind", "spec"), [("FineTuneJob", TRAINING), ("Evaluation", MEASURING)])
@pytest.mark.parametrize(
    ("namespace", "owners", "refusal"),
    [
        (TEAM, [], "the operator creates only jobs that are trials of a sweep"),
        (TEAM, [SWEEP], "the operator creates only jobs that are trials of a sweep"),
        (TEAM, [{**SWEEP, "kind": "Evaluation", "controller": True}], "the operator creates only jobs that are trials"),
        (TEAM, [{**SWEEP, "controller": True}], None),
        ("kube-system", [{**SWEEP, "controller": True}], "the operator may not create jobs and Evaluations in the"),
    ],
    ids=["of nobody", "not controlled", "of another kind", "a trial", "a trial in a system namespace"],
)
def test_of_jobs_and_evaluations_the_operator_may_create_those_of_trials_only(
    release: Release,
    platform: None,
    namespace: str,
    owners: list[Any],
    refusal: str | None,
    kind: str,
    spec: dict[str, Any],
) -> None:
    meta = {"name": "trial", "namespace": namespace, "ownerReferences": owners}
    body = {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
    done = subprocess.run(
        [
            *(release.commands["kubectl"], "--kubeconfig", account_kubeconfig(release)),
            *("create", "--dry-run=server", "--validate=false", "-f", "-"),
        ],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode == 0) == (refusal is None), done.stderr
    assert (refusal or "") in done.stderr


@pytest.mark.parametrize(
    ("finalizers", "refusal"),
    [
        ([], None),
        (["finetune.dev/storage"], None),
        (["example.com/mine", "finetune.dev/storage"], "only its own finalizer"),
        (["foregroundDeletion"], "only its own finalizer"),
    ],
)
def test_of_a_jobs_finalizers_the_operator_writes_its_own_only(
    release: Release, platform: None, finalizers: list[str], refusal: str | None
) -> None:
    apply(release, "FineTuneJob", "unheld", model={"uri": BASE}, dataset={"training": {"uri": DATA}})
    change = {"metadata": {"finalizers": finalizers}}
    done = as_account(release, "patch", "ftj", "unheld", "--type=merge", "--dry-run=server", "-p", json.dumps(change))
    assert (done.returncode == 0) == (refusal is None), done.stderr
    assert (refusal or "") in done.stderr


def as_account(release: Release, *words: str) -> subprocess.CompletedProcess[str]:
    """kubectl under the operator's own account, in the team's namespace."""
    command = [release.commands["kubectl"], "--kubeconfig", account_kubeconfig(release), "-n", TEAM, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def refusals(release: Release, objects: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """What the operator's account is told when it creates these objects, each under its key; empty where it may."""
    items = [{**item, "metadata": {**item["metadata"], "name": name}} for name, item in objects.items()]
    command = [release.commands["kubectl"], "--kubeconfig", account_kubeconfig(release), "create", "--dry-run=server"]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    done = subprocess.run(
        [*command, "-f", "-"], input=body, capture_output=True, text=True, timeout=2 * WAIT_SECONDS, check=False
    )
    made = {line.split()[0].partition("/")[2] for line in done.stdout.splitlines()}
    lines = done.stderr.splitlines()
    told = {name: next((line for line in lines if f'"{name}" is' in line), done.stderr) for name in objects}
    return {name: "" if name in made else line for name, line in told.items()}


def own_job(release: Release, name: str) -> dict[str, Any]:
    """The ownerReference of a new FineTuneJob on its children."""
    start_job(release, name)
    uid = release.get("-n", TEAM, "ftj", name)["metadata"]["uid"]
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": name, "uid": uid, "controller": True}


def job_by_hand(by: Mapping[str, Any], container: Mapping[str, Any] | None = None, **pod: Any) -> dict[str, Any]:
    """A Job such as the operator's, but for these fields of its Pod and of its container."""
    (own,) = PODS_BY_HAND["containers"]
    containers = [{**own, **(container or {})}]
    spec = {**PODS_BY_HAND, "restartPolicy": "Never", "automountServiceAccountToken": False, "containers": containers}
    metadata = {"namespace": TEAM, "ownerReferences": [by]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"template": {"spec": {**spec, **pod}}},
    }


def object_by_hand(kind: str, namespace: str = TEAM, spec: Mapping[str, Any] | None = None, **metadata: Any) -> Any:
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace, **metadata}}
    return body if spec is None else {**body, "spec": spec}


def test_the_operators_account_is_held_to_its_own(release: Release, operator: Operator, platform: None) -> None:
    """Who has its token is not the cluster's administrator: it writes what one of our kinds controls, and ledgers."""
    by = own_job(release, "own")
    label, ledger = {"finetune.dev/owner-uid": by["uid"]}, {"finetune.dev/role": "usage"}
    ports = [{"port": 80}]
    another = {**by, "apiVersion": "apps/v1", "kind": "Deployment"}
    may = {
        "job": job_by_hand(by),
        "pod": without_job(job_by_hand(by)),
        "config": object_by_hand("ConfigMap", ownerReferences=[by]),
        "of-a-class": object_by_hand("ConfigMap", ownerReferences=[{**by, "kind": "FineTuneClass"}]),
        "ledger": object_by_hand("ConfigMap", NAMESPACE, labels=ledger),
        "service": object_by_hand("Service", spec={"ports": ports}, ownerReferences=[by]),
    }
    assert refusals(release, may) == dict.fromkeys(may, "")
    owned = "whose controller is a FineTuneClass"
    expected = {
        "nobodys": (owned, object_by_hand("ConfigMap")),
        "a-pod-of-nobody": (owned, without_job(job_by_hand({**by, "controller": False}))),
        "labelled": (owned, object_by_hand("ConfigMap", labels=label)),
        "not-controlled": (owned, object_by_hand("ConfigMap", ownerReferences=[{**by, "controller": False}])),
        "of-another": (owned, object_by_hand("ConfigMap", labels=label, ownerReferences=[another])),
        "of-no-kind": (owned, object_by_hand("ConfigMap", ownerReferences=[{**by, "kind": "Secret"}])),
        "a-tenants-ledger": (owned, object_by_hand("ConfigMap", labels=ledger)),
        "a-service-as-ledger": (owned, object_by_hand("Service", NAMESPACE, {"ports": ports}, labels=ledger)),
        "system": ("system namespaces", object_by_hand("ConfigMap", "kube-system", ownerReferences=[by])),
    }
    outward = {
        "balanced": {"type": "LoadBalancer"},
        "node": {"type": "NodePort"},
        "ips": {"externalIPs": ["192.0.2.1"]},
    }
    for name, of in outward.items():
        service = object_by_hand("Service", spec={"ports": ports, **of}, ownerReferences=[by])
        expected[name] = ("inside the cluster", service)
    told = refusals(release, {name: item for name, (_, item) in expected.items()})
    assert [f"{name}: {told[name]}" for name, (words, _) in expected.items() if words not in told[name]] == []

    patch = ("patch", "service", "kubernetes", "-n", "default", "-p", '{"spec": {"selector": {"a": "b"}}}')
    assert "whose controller is" in as_account(release, *patch).stderr
    foreign = ("delete", "configmap", "kube-root-ca.crt", "--dry-run=server")
    assert "objects that it created" in as_account(release, *foreign).stderr
    apply(release, "ModelDeployment", "served", model={"uri": BASE}, replicas=0)
    release.wait("-n", TEAM, "service/served", until="create")
    change = ("patch", "service", "served", "--dry-run=server", "--type=merge", "-p")
    disowned = as_account(release, *change, json.dumps({"metadata": {"ownerReferences": None}}))
    assert "whose controller is" in disowned.stderr
    noted = as_account(release, *change, json.dumps({"metadata": {"annotations": {"a": "b"}}}))
    assert noted.returncode == 0, noted.stderr


def token_volume(**token: str) -> list[dict[str, Any]]:
    return [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", **token}}]}}]


POD_SECURITY: dict[str, Any] = PODS_BY_HAND["securityContext"]
CONTAINER_SECURITY: dict[str, Any] = PODS_BY_HAND["containers"][0]["securityContext"]
PROBE = {"httpGet": {"path": "/", "port": 80, "host": "127.0.0.1"}}
NAMESPACES_OF_NODE, VOLUMES = "network, process or IPC namespace", "volumes from ConfigMaps"
TOKENS, USER = "never for the API server", "run as a non-root user"
PRIVILEGES, OVERRIDES, PORTS = "without privileges", "override their Pod's user", "host ports, lifecycle hooks"


def volume(by: Mapping[str, Any], **source: Any) -> dict[str, Any]:
    return job_by_hand(by, volumes=[{"name": "mine", **source}])


def sources(by: Mapping[str, Any], *more: Any) -> dict[str, Any]:
    return volume(by, projected={"sources": more})


def pod_security(by: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return job_by_hand(by, securityContext={**POD_SECURITY, **changes})


def security(by: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return job_by_hand(by, {"securityContext": {**CONTAINER_SECURITY, **changes}})


def confined_pods(by: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Jobs that the account may create."""
    return {
        "empty": volume(by, emptyDir={}),
        "config": volume(by, configMap={"name": "run"}),
        "secret": volume(by, secret={"secretName": "s3"}),
        "downward": volume(
            by, downwardAPI={"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.annotations"}}]}
        ),
        "progress": job_by_hand(by, volumes=token_volume(audience=PROGRESS_AUDIENCE)),
        "port": job_by_hand(by, {"ports": [{"containerPort": 80}]}),
        "probe": job_by_hand(by, {"readinessProbe": {"httpGet": {"path": "/", "port": 80}}}),
    }


def pods_that_reach_out(by: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Jobs that it may not create, and what it is told."""
    root = {**PODS_BY_HAND["containers"][0], "name": "init", "securityContext": {"privileged": True}}
    return {
        "host-network": (NAMESPACES_OF_NODE, job_by_hand(by, hostNetwork=True)),
        "host-pid": (NAMESPACES_OF_NODE, job_by_hand(by, hostPID=True)),
        "host-ipc": (NAMESPACES_OF_NODE, job_by_hand(by, hostIPC=True)),
        "host-path": (VOLUMES, volume(by, hostPath={"path": "/"})),
        "claim": (VOLUMES, volume(by, persistentVolumeClaim={"claimName": "a"})),
        "nfs": (VOLUMES, volume(by, nfs={"server": "192.0.2.1", "path": "/"})),
        "token-mounted": (TOKENS, job_by_hand(by, automountServiceAccountToken=True)),
        "token-default": (TOKENS, job_by_hand(by, automountServiceAccountToken=None)),
        "token-projected": (TOKENS, job_by_hand(by, volumes=token_volume())),
        "token-elsewhere": (TOKENS, job_by_hand(by, volumes=token_volume(audience="https://kubernetes.default.svc"))),
        "token-second": (
            TOKENS,
            sources(
                by,
                {"serviceAccountToken": {"path": "a", "audience": PROGRESS_AUDIENCE}},
                {"serviceAccountToken": {"path": "b"}},
            ),
        ),
        "secret-projected": (TOKENS, sources(by, {"secret": {"name": "a-token"}})),
        "no-security": (USER, job_by_hand(by, securityContext=None)),
        "root": (USER, pod_security(by, runAsUser=0)),
        "may-be-root": (USER, pod_security(by, runAsNonRoot=False)),
        "any-user": (USER, pod_security(by, runAsUser=None)),
        "unconfined": (USER, pod_security(by, seccompProfile={"type": "Unconfined"})),
        "no-profile": (USER, pod_security(by, seccompProfile=None)),
        "sysctl": (USER, pod_security(by, sysctls=[{"name": "kernel.shm_rmid_forced", "value": "1"}])),
        "se-linux": (USER, pod_security(by, seLinuxOptions={"type": "spc_t"})),
        "privileged": (PRIVILEGES, job_by_hand(by, {"securityContext": {"privileged": True}})),
        "init-privileged": (PRIVILEGES, job_by_hand(by, initContainers=[root])),
        "escalates": (PRIVILEGES, security(by, allowPrivilegeEscalation=True)),
        "may-escalate": (PRIVILEGES, security(by, allowPrivilegeEscalation=None)),
        "added": (PRIVILEGES, security(by, capabilities={"drop": ["ALL"], "add": ["NET_RAW"]})),
        "kept": (PRIVILEGES, security(by, capabilities={"drop": ["NET_RAW"]})),
        "container-root": (OVERRIDES, security(by, runAsUser=0)),
        "container-may-be-root": (OVERRIDES, security(by, runAsNonRoot=False)),
        "container-unconfined": (OVERRIDES, security(by, seccompProfile={"type": "Unconfined"})),
        "container-se-linux": (OVERRIDES, security(by, seLinuxOptions={"type": "spc_t"})),
        "host-port": (PORTS, job_by_hand(by, {"ports": [{"containerPort": 80, "hostPort": 80}]})),
        "hook": (PORTS, job_by_hand(by, {"lifecycle": {"preStop": PROBE}})),
        "liveness": (PORTS, job_by_hand(by, {"livenessProbe": PROBE})),
        "readiness": (PORTS, job_by_hand(by, {"readinessProbe": PROBE})),
        "startup": (PORTS, job_by_hand(by, {"startupProbe": {"tcpSocket": {"port": 80, "host": "127.0.0.1"}}})),
    }


def without_job(job: Mapping[str, Any], namespace: str = TEAM) -> dict[str, Any]:
    """The Pod of a Job, with the same owner."""
    meta = {**job["metadata"], "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": job["spec"]["template"]["spec"]}


@pytest.fixture(scope="module")
def unrestricted(release: Release) -> str:
    """A namespace of which the API server itself enforces no Pod Security level."""
    name = "unrestricted"
    release.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    release.wait("-n", name, "serviceaccount/default", until="create")
    return name


def with_what_webhooks_add(by: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Jobs of which the Pod alone may be created: webhooks see a Job's Pods only when the Job controller makes them."""
    another_user = {"runAsUser": 1337, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "identity-of-eks": job_by_hand(by, volumes=token_volume(audience="sts.amazonaws.com")),
        "identity-of-aks": job_by_hand(by, volumes=token_volume(audience="api://AzureADTokenExchange")),
        "sidecar-of-another-user": security(by, **another_user),
    }


@pytest.mark.parametrize("alone", [False, True], ids=["in a Job", "without a Job"])
def test_the_operators_account_makes_no_pod_that_reaches_its_node_or_the_api_server(
    release: Release, operator: Operator, platform: None, unrestricted: str, alone: bool
) -> None:
    by = own_job(release, f"confined-{alone}".lower())

    def made(job: dict[str, Any]) -> dict[str, Any]:
        return without_job(job, unrestricted) if alone else job

    may, added, expected = confined_pods(by), with_what_webhooks_add(by), pods_that_reach_out(by)
    may |= added if alone else {}
    assert refusals(release, {name: made(item) for name, item in may.items()}) == dict.fromkeys(may, "")
    if not alone:
        assert all(refusals(release, added).values())
    told = refusals(release, {name: made(item) for name, (_, item) in expected.items()})
    assert [f"{name}: {told[name]}" for name, (words, _) in expected.items() if words not in told[name]] == []


@pytest.mark.parametrize("role", [*EVERY, "delete"])
def test_the_operators_account_makes_everything_that_the_operator_makes(
    release: Release, operator: Operator, platform: None, role: str
) -> None:
    """Also with all that a class may ask for, and for several nodes with a progress endpoint."""
    of_class: dict[str, Any] = {
        "accelerator": {"resourceName": "nvidia.com/gpu", "countPerNode": 1},
        "scheduling": {"runtimeClassName": "nvidia", "priorityClassName": "low", "queueName": "tuning"},
        "podMetadata": {"labels": {"team": "a"}, "annotations": {"a": "b"}},
    }
    # Of a Pod without a Job, the API server checks at once whether these exist.
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": 1}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "storage", "namespace": TEAM}}
    for needed in (priority, account):
        release.kubectl("apply", "-f", "-", stdin=needed)
    for storage in ({}, {"credentialsSecretName": None, "serviceAccountName": "storage"}):
        asked = {**of_class, "storage": storage}
        if role == "delete":
            made = [delete_job(OWNER, "1", resolved_class(**asked), ["s3://models/finetune/team-a/router/1"], 1)]
        else:
            made = children(**asked)[role]
        objects = {f"{role}-{number}": item for number, item in enumerate(made)}
        assert refusals(release, objects) == dict.fromkeys(objects, "")
