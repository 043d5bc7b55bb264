"""The Helm chart on a real API server: it installs, its account may do what the operator does, and nothing more.

The operator runs here as a process with a token of the chart's ServiceAccount and the flags of the chart's Deployment.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from e2e.children import with_parent
from e2e.cluster.binaries import binaries
from e2e.cluster.commands import ask, run
from e2e.cluster.control_plane import ControlPlane, control_plane
from e2e.cluster.ports import free_ports
from finetune_api.crd import KINDS
from finetune_api.progress import PROGRESS_AUDIENCE
from finetune_operator.core.ownership import Owner, labels
from finetune_operator.finetunejob.objects import TRAIN_ROLE
from finetune_operator.metrics import job_metrics, object_metrics  # noqa: F401 - they declare their metrics
from finetune_operator.metrics.operator_metrics import DECLARED

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "finetune-operator"
RELEASE, NAMESPACE, TEAM = "finetune-operator", "finetune-system", "team-a"
NAMESPACES = [
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    for name in (NAMESPACE, TEAM)
]
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
ACCOUNT_GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated")
WAIT_SECONDS = 30

CLASS = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneClass",
    "metadata": {"name": "cpu", "annotations": {"finetune.dev/is-default-class": "true"}},
    "spec": {"storage": {"bucket": "models", "credentialsSecretName": "s3"}},
}
TRAINER_IMAGE = "example.com/trainer:1"
GRADER = {"name": "exact", "type": "StringCheck", "stringCheck": {}}
BASE, TUNED, DATA = "s3://models/base", "s3://models/tuned", "s3://data/lines.jsonl"


@dataclass(frozen=True)
class Cluster:
    """A control plane with the chart's release in it."""

    plane: ControlPlane
    commands: Mapping[str, Path]

    def kubectl(self, *words: str, stdin: object = None) -> str:
        text = None if stdin is None else json.dumps(stdin)
        return run(self.commands["kubectl"], "--kubeconfig", self.plane.kubeconfig, *words, input=text)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def wait(self, *words: str, until: str) -> None:
        """Wait for a condition in the words of `kubectl wait --for`."""
        self.kubectl("wait", *words, f"--for={until}", f"--timeout={WAIT_SECONDS}s")

    def wait_reason(self, name: str, reason: str) -> None:
        """Wait until an object of the team is Ready, or not Ready, for this reason."""
        self.wait("-n", TEAM, name, until=f"jsonpath={{.status.conditions[?(@.type=='Ready')].reason}}={reason}")

    def helm(self, *words: str) -> str:
        return run(self.commands["helm"], "--kubeconfig", self.plane.kubeconfig, "-n", NAMESPACE, *words)

    def allowed(
        self, user: str, groups: Sequence[str], questions: Sequence[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], bool]:
        """The API server's answer to each (verb, group, resource[/subresource]) in the team's namespace."""
        reviews = []
        for verb, group, resource in questions:
            plural, _, subresource = resource.partition("/")
            asked = {"namespace": TEAM, "verb": verb, "group": group, "resource": plural, "subresource": subresource}
            reviews.append(
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {"user": user, "groups": list(groups), "resourceAttributes": asked},
                }
            )
        body = {"apiVersion": "v1", "kind": "List", "items": reviews}
        answers = self.kubectl("create", "-f", "-", "-o", 'jsonpath={.status.allowed}{" "}', stdin=body).split()
        return {question: answer == "true" for question, answer in zip(questions, answers, strict=True)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane of this module's own: another operator in the same cluster would do the work under test."""
    commands = binaries(["kubectl", "helm"])
    with control_plane() as plane:
        found = Cluster(plane, commands)
        found.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": NAMESPACES})
        # Without the right that everyone else has, which the operator must not live on.
        values = f"--set=classesVisibleToAll=false,trainerImage={TRAINER_IMAGE}"
        found.helm("install", RELEASE, str(CHART), values)
        found.wait("crd", "--all", until="condition=Established")
        yield found


@dataclass(frozen=True)
class Operator:
    """The running operator: its log, the port of its progress endpoint, and its process."""

    log: Path
    progress_port: int
    process: subprocess.Popen[bytes]

    def end(self) -> None:
        """As its Pod ends. Raises AssertionError where it did not run until now, or ends with an error."""
        assert self.process.poll() is None, self.log.read_text()
        self.process.terminate()
        assert self.process.wait(WAIT_SECONDS) == 0, self.log.read_text()


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator under the chart's account, with the chart's certificate and flags, seen to lead and to watch."""
    folder = tmp_path_factory.mktemp("operator")
    for file, content in certificate(cluster).items():
        (folder / file).write_bytes(b64decode(content))
    health, metrics, progress = free_ports(3)
    container = cluster.get("-n", NAMESPACE, "deployment", RELEASE)["spec"]["template"]["spec"]["containers"][0]
    (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"]
    flags = [flag.replace(mounted, str(folder)) for flag in container["args"]]
    ports = [f"--health-port={health}", f"--metrics-port={metrics}", f"--progress-port={progress}"]
    log = folder / "log"
    access = f"--kubeconfig={account_kubeconfig(cluster)}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            with_parent([sys.executable, "-m", "finetune_operator", *flags, *ports, access]),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")},
        )
    running = Operator(log, progress, process)
    try:
        wait_until_ready(process, log, health)
        yield running
        if process.poll() != 0:  # what uninstalls ends it before
            running.end()
    finally:
        process.kill()


@pytest.fixture(scope="module")
def platform(cluster: Cluster, operator: Operator) -> None:
    """The default class, which the operator has found to be good."""
    cluster.kubectl("apply", "-f", "-", stdin=CLASS)
    cluster.wait("ftc/cpu", until="condition=Ready")


def start_job(cluster: Cluster, name: str) -> tuple[str, ...]:
    """Make a FineTuneJob; returns what selects the children of its preflight, once there is a Pod.

    Nothing runs the Pod, as there is no kubelet.
    """
    apply(cluster, "FineTuneJob", name, model={"uri": BASE}, dataset={"training": {"uri": DATA}})
    uid = cluster.get("-n", TEAM, "ftj", name)["metadata"]["uid"]
    selector = ("-l", f"finetune.dev/owner-uid={uid},finetune.dev/role=preflight")
    cluster.wait("-n", TEAM, "pod", *selector, until="create")
    return selector


def apply(cluster: Cluster, kind: str, name: str, **spec: object) -> None:
    body = {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("-n", TEAM, "apply", "-f", "-", stdin=body)


def certificate(cluster: Cluster) -> dict[str, str]:
    data: dict[str, str] = cluster.get("-n", NAMESPACE, "secret", f"{RELEASE}-tls")["data"]
    return data


def account_kubeconfig(cluster: Cluster, account: str = RELEASE) -> Path:
    """A kubeconfig that holds a token of one of the chart's accounts, and no certificate."""
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", account).strip()
    config["users"][0]["user"] = {"token": token}
    path = cluster.plane.home / f"{account}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)


# What the chart installs


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("image.tagg=1", "additional properties 'tagg' not allowed"),
        ("workers=0", "minimum: got 0, want 1"),
        ("image.digest=latest", "'latest' does not match pattern"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("replicas=6", "maximum: got 6, want 5"),
        ('admission.exemptUsers={a"b}', "does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused(value: str, complaint: str) -> None:
    helm = binaries(["helm"])["helm"]
    done = subprocess.run(
        [helm, "template", RELEASE, CHART, "--set", value], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert complaint in done.stderr


def test_it_passes_helm_lint() -> None:
    run(binaries(["helm"])["helm"], "lint", "--strict", CHART)


def test_its_pod_passes_the_restricted_pod_security_standard(cluster: Cluster) -> None:
    # The namespace enforces it: the Pod would not exist.
    cluster.wait("-n", NAMESPACE, "pod", "-l", f"app.kubernetes.io/instance={RELEASE}", until="create")


def rendered(*values: str, flags: Sequence[str] = ()) -> list[Any]:
    """The objects that the chart makes with these values."""
    given = [flag for value in values for flag in ("--set", value)]
    text = run(binaries(["helm"])["helm"], "template", RELEASE, CHART, "-n", NAMESPACE, *given, *flags)
    return [item for item in yaml.safe_load_all(text) if item]


@pytest.mark.parametrize(("values", "expected"), [((), "[]"), (("admission.exemptUsers={a:b,c}",), '["a:b","c"]')])
def test_who_is_exempt_is_let_through_by_the_policy_on_children(values: tuple[str, ...], expected: str) -> None:
    has_policies = ("--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")
    found = rendered(*values, flags=has_policies)
    policies = [item for item in found if item["kind"] == "ValidatingAdmissionPolicy"]
    for about in ("children.", "jobpods."):
        (policy,) = [item for item in policies if item["metadata"]["name"].startswith(about)]
        exempt = policy["spec"]["matchConditions"][0]["expression"]
        assert exempt.endswith(f"&& !(request.userInfo.username in {expected})")
        assert "startsWith" not in exempt, "not every account of kube-system is a controller of Kubernetes"


def test_the_policies_are_the_platforms_choice() -> None:
    has_policies = ("--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")

    def policies(*values: str) -> dict[str, Any]:
        found = [item for item in rendered(*values, flags=has_policies) if "AdmissionPolicy" in item["kind"]]
        return {item["metadata"]["name"]: item["spec"] for item in found if not item["kind"].endswith("Binding")}

    assert policies("admission.enabled=false") == {}
    ours = "admission.namespaceSelector.matchLabels.tuning=yes"
    chosen = policies(ours, "admission.namespaceSelector.matchExpressions=null")
    about_users = {"children", "jobpods", "tokens"}
    for name, spec in chosen.items():
        scope = {"matchLabels": {"tuning": "yes"}} if name.partition(".")[0] in about_users else None
        assert spec["matchConstraints"].get("namespaceSelector") == scope
    assert {name.partition(".")[0] for name in policies()} == {*about_users, "account", RELEASE}


@pytest.mark.parametrize(("replicas", "kept"), [(1, False), (2, True)])
def test_of_two_replicas_one_is_always_kept(replicas: int, kept: bool) -> None:
    objects = {item["kind"]: item for item in rendered(f"replicas={replicas}")}
    spec = objects["Deployment"]["spec"]
    assert spec["replicas"] == replicas
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert ("PodDisruptionBudget" in objects) == kept
    assert ("topologySpreadConstraints" in spec["template"]["spec"]) == kept


def test_alerts_are_about_metrics_that_there_are() -> None:
    (rule,) = [item for item in rendered("metrics.prometheusRule.enabled=true") if item["kind"] == "PrometheusRule"]
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) > 5
    for alert in alerts:
        assert set(re.findall(r"finetune_\w+", alert["expr"])) <= {one.name for one in DECLARED}, alert["alert"]
        labels = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
        (metric,) = [one for one in DECLARED if one.name in re.findall(r"finetune_\w+", alert["expr"])]
        assert labels <= set(metric.labels), alert["alert"]


# What the operator does with the chart's rights: each test needs some of them, together they need all


def test_a_pod_monitor_selects_the_port_of_training_pods() -> None:
    assert "PodMonitor" not in {item["kind"] for item in rendered()}
    (monitor,) = [item for item in rendered("metrics.podMonitor.enabled=true") if item["kind"] == "PodMonitor"]
    owner = Owner("FineTuneJob", TEAM, "router", "u-1")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels(owner, TRAIN_ROLE).items()
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


def test_a_class_becomes_ready(cluster: Cluster, platform: None) -> None:
    cluster.wait("-n", "default", "events", "--field-selector=involvedObject.kind=FineTuneClass", until="create")


def test_a_job_is_validated_and_suspended(cluster: Cluster, platform: None) -> None:
    preflight = start_job(cluster, "suspended")
    children = {item["kind"]: item for item in cluster.get("-n", TEAM, "job,configmap", *preflight)["items"]}
    assert set(children) == {"Job", "ConfigMap"}
    assert children["Job"]["spec"]["template"]["spec"]["containers"][0]["image"] == TRAINER_IMAGE
    cluster.wait_reason("ftj/suspended", "Validating")
    cluster.kubectl("-n", TEAM, "patch", "ftj", "suspended", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    cluster.wait_reason("ftj/suspended", "Suspended")
    cluster.wait("-n", TEAM, "job", *preflight, until="delete")
    cluster.wait("-n", TEAM, "events", "--field-selector=reason=Suspended", until="create")


def test_an_evaluation_starts(cluster: Cluster, platform: None) -> None:
    candidates = [{"name": "tuned", "model": {"uri": TUNED}}]
    spec = {"candidates": candidates, "baseline": {"model": {"uri": BASE}}, "dataset": {"uri": DATA}}
    apply(cluster, "Evaluation", "judge", **spec, graders=[GRADER])
    cluster.wait_reason("eval/judge", "Evaluating")
    cluster.wait("-n", TEAM, "pod", "-l", "finetune.dev/role=evaluate", until="create")


def test_a_model_is_served_and_replaced(cluster: Cluster, platform: None) -> None:
    apply(cluster, "ModelDeployment", "chat", model={"uri": BASE}, replicas=0)
    cluster.wait_reason("mdep/chat", "Available")
    (first,) = served(cluster)
    assert cluster.get("-n", TEAM, "service", "chat")["spec"]["ports"][0]["port"] == 80
    apply(cluster, "ModelDeployment", "chat", model={"uri": TUNED}, replicas=0)
    cluster.wait("-n", TEAM, f"configmap/{first}", until="delete")
    (second,) = served(cluster)
    assert second != first


def test_a_deployment_waits_for_the_gate(cluster: Cluster, platform: None) -> None:
    apply(cluster, "ModelDeployment", "gated", model={"uri": BASE}, gate={"evaluationRef": {"name": "none"}})
    cluster.wait_reason("mdep/gated", "ReferenceNotFound")


async def test_a_pod_reports_its_own_progress(cluster: Cluster, operator: Operator, platform: None) -> None:
    preflight = start_job(cluster, "reporting")
    (pod,) = (item["metadata"] for item in cluster.get("-n", TEAM, "pod", *preflight)["items"])
    path = f"/v1alpha1/namespaces/{TEAM}/finetunejobs/reporting/attempts/"
    own = path + pod["labels"]["batch.kubernetes.io/job-name"]
    token = ("-n", TEAM, "create", "token", "default")
    audience = f"--audience={PROGRESS_AUDIENCE}"
    bound = cluster.kubectl(*token, audience, "--bound-object-kind=Pod", f"--bound-object-name={pod['name']}").strip()
    assert await report(cluster, operator, own, bound) == 200
    assert await report(cluster, operator, path + "another", bound) == 403
    for flags in ((), (audience,)):
        assert await report(cluster, operator, own, cluster.kubectl(*token, *flags).strip()) == 401


def test_a_job_of_a_class_that_reclaims_its_storage_is_held_until_that_is_done(
    cluster: Cluster, operator: Operator, platform: None
) -> None:
    reclaiming = {**CLASS, "metadata": {"name": "reclaiming"}, "spec": {**CLASS["spec"], "reclaimPolicy": "Delete"}}
    cluster.kubectl("apply", "-f", "-", stdin=reclaiming)
    spec = {"className": "reclaiming", "model": {"uri": BASE}, "dataset": {"training": {"uri": DATA}}}
    apply(cluster, "FineTuneJob", "held", **spec)
    cluster.wait("-n", TEAM, "ftj/held", until="jsonpath={.metadata.finalizers}")
    uid = cluster.get("-n", TEAM, "ftj", "held")["metadata"]["uid"]
    cluster.wait_reason("ftj/held", "Validating")
    cluster.kubectl("-n", TEAM, "delete", "ftj", "held", "--wait=false")
    cluster.wait("-n", TEAM, "job", "-l", f"finetune.dev/owner-uid={uid},finetune.dev/role=delete", until="create")


def test_the_account_of_the_uninstallation_releases_what_is_held(
    cluster: Cluster, operator: Operator, platform: None
) -> None:
    reclaiming = {**CLASS, "metadata": {"name": "reclaiming"}, "spec": {**CLASS["spec"], "reclaimPolicy": "Delete"}}
    cluster.kubectl("apply", "-f", "-", stdin=reclaiming)
    spec = {"className": "reclaiming", "model": {"uri": BASE}, "dataset": {"training": {"uri": DATA}}}
    apply(cluster, "FineTuneJob", "released", **spec)
    cluster.wait("-n", TEAM, "ftj/released", until="jsonpath={.metadata.finalizers}")
    hook = [item for item in rendered() if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    (job,) = [item for item in hook if item["kind"] == "Job"]
    account = job["spec"]["template"]["spec"]["serviceAccountName"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    cluster.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": hook})
    cluster.wait("-n", NAMESPACE, "pod", "-l", f"job-name={job['metadata']['name']}", until="create")
    config = account_kubeconfig(cluster, account)
    words = [sys.executable, "-m", "finetune_operator", *container["args"], f"--kubeconfig={config}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_SECONDS, env=environment, check=False)
    cluster.kubectl("delete", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": hook})
    assert done.returncode == 0, done.stderr
    assert f"{TEAM}/released" in done.stdout


def test_nothing_was_refused(operator: Operator) -> None:
    refusals = [line for line in operator.log.read_text().splitlines() if "Forbidden" in line or "forbidden" in line]
    assert not refusals


async def report(cluster: Cluster, operator: Operator, path: str, token: str) -> int:
    """Send a progress report as a training Pod would, checking the certificate against the chart's CA and Service."""
    trusted = ssl.create_default_context(cadata=b64decode(certificate(cluster)["ca.crt"]).decode())
    trusted.verify_flags |= ssl.VERIFY_X509_STRICT
    status = {"lastUpdatedTime": "2026-01-01T00:00:00Z", "metrics": [{"name": "total_steps", "value": "10"}]}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.post(
            f"https://127.0.0.1:{operator.progress_port}{path}",
            json={"trainerStatus": status},
            headers={"Authorization": f"Bearer {token}"},
            ssl=trusted,
            server_hostname=f"{RELEASE}.{NAMESPACE}.svc",
        ) as answer,
    ):
        return answer.status


def served(cluster: Cluster) -> list[str]:
    found = cluster.get("-n", TEAM, "configmap", "-l", "finetune.dev/role=serve")["items"]
    return [item["metadata"]["name"] for item in found]


# What nobody may do


def test_the_operator_may_do_nothing_that_it_does_not_need(cluster: Cluster) -> None:
    questions = [
        *((verb, "", "secrets") for verb in ("get", "list", "watch", "create", "patch", "update", "delete")),
        *((verb, "", "pods") for verb in ("create", "patch", "update", "delete")),
        ("create", "", "pods/exec"),
        ("get", "", "pods/log"),
        ("create", "", "serviceaccounts/token"),
        ("impersonate", "", "users"),
        *((verb, "rbac.authorization.k8s.io", "clusterroles") for verb in ("bind", "escalate", "create", "update")),
        ("get", "", "nodes"),
        ("list", "", "namespaces"),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions"),
        *((verb, "finetune.dev", kind.plural) for kind in KINDS for verb in ("create", "update", "delete")),
        *(("patch", "finetune.dev", kind.plural) for kind in KINDS if kind.name != "FineTuneJob"),
        *((verb, "coordination.k8s.io", "leases") for verb in ("get", "list", "create", "update", "delete")),
        *((verb, "", "configmaps") for verb in ("get", "update", "deletecollection")),
        *((verb, "", "services") for verb in ("update", "delete")),
        *((verb, "apps", "deployments") for verb in ("update", "delete", "deletecollection")),
        *((verb, "batch", "jobs") for verb in ("get", "patch", "update", "deletecollection")),
        *((verb, "", "events") for verb in ("get", "watch", "patch", "delete")),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
    ]
    answers = cluster.allowed(ACCOUNT, ACCOUNT_GROUPS, questions)
    assert [question for question, allowed in answers.items() if allowed] == []


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
    cluster: Cluster, platform: None, change: Mapping[str, Any], refusal: str | None
) -> None:
    apply(cluster, "FineTuneJob", "untouched", model={"uri": BASE}, dataset={"training": {"uri": DATA}})
    words = ("-n", TEAM, "patch", "ftj", "untouched", "--type=merge", "-p", json.dumps(change))
    done = subprocess.run(
        [cluster.commands["kubectl"], "--kubeconfig", account_kubeconfig(cluster), *words],
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
    cluster: Cluster, platform: None, finalizers: list[str], refusal: str | None
) -> None:
    apply(cluster, "FineTuneJob", "unheld", model={"uri": BASE}, dataset={"training": {"uri": DATA}})
    change = {"metadata": {"finalizers": finalizers}}
    done = as_account(cluster, "patch", "ftj", "unheld", "--type=merge", "--dry-run=server", "-p", json.dumps(change))
    assert (done.returncode == 0) == (refusal is None), done.stderr
    assert (refusal or "") in done.stderr


def as_account(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """kubectl under the operator's own account, in the team's namespace."""
    command = [cluster.commands["kubectl"], "--kubeconfig", account_kubeconfig(cluster), "-n", TEAM, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


PODS_BY_HAND: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "trainer",
            "image": "example.com/mine:1",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def test_the_operators_account_is_held_to_its_own(cluster: Cluster, operator: Operator, platform: None) -> None:
    """Who has its token is not the cluster's administrator."""
    start_job(cluster, "own")
    uid = cluster.get("-n", TEAM, "ftj", "own")["metadata"]["uid"]
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "own", "uid": uid}
    owned = {"ownerReferences": [{**owner, "controller": True}]}
    pod = {**PODS_BY_HAND, "restartPolicy": "Never", "automountServiceAccountToken": False}
    kubeconfig = account_kubeconfig(cluster)

    def told(namespace: str, kind: str, spec: dict[str, Any], **metadata: Any) -> str:
        version = {"Job": "batch/v1", "ConfigMap": "v1", "Service": "v1"}[kind]
        meta = {"name": "by-hand", "namespace": namespace, **metadata}
        body = json.dumps({"apiVersion": version, "kind": kind, "metadata": meta, **spec})
        words = [cluster.commands["kubectl"], "--kubeconfig", kubeconfig, "create", "--dry-run=server", "-f", "-"]
        done = subprocess.run(words, input=body, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
        return "" if done.returncode == 0 else done.stderr

    def job(**changes: Any) -> dict[str, Any]:
        return {"spec": {"template": {"spec": {**pod, **changes}}}}

    assert told(TEAM, "Job", job(), **owned) == ""
    assert "what its own kinds own" in told(TEAM, "Job", job())
    assert "what its own kinds own" in told(TEAM, "ConfigMap", {"data": {}})
    assert "what its own kinds own" in told(TEAM, "ConfigMap", {}, labels={"finetune.dev/role": "usage"})
    assert "namespaces of the cluster itself" in told("kube-system", "Job", job(), **owned)
    host = [{"name": "host", "hostPath": {"path": "/"}}]
    for changes in (
        {"volumes": host},
        {"hostNetwork": True},
        {"hostPID": True},
        {"automountServiceAccountToken": True},
    ):
        assert "no Pod with its node's files" in told(TEAM, "Job", job(**changes), **owned)
    container = {**PODS_BY_HAND["containers"][0], "securityContext": {"privileged": True}}
    assert "no privileged container" in told(TEAM, "Job", job(containers=[container]), **owned)
    service = {"spec": {"ports": [{"port": 80}], "type": "LoadBalancer"}}
    assert "inside of the cluster" in told(TEAM, "Service", service, **owned)
    patch = ("patch", "service", "kubernetes", "-n", "default", "-p", '{"spec": {"selector": {"a": "b"}}}')
    assert "what its own kinds own" in as_account(cluster, *patch).stderr
    config_map = ("delete", "configmap", "kube-root-ca.crt", "--dry-run=server")
    assert "what its own kinds own" in as_account(cluster, *config_map).stderr


def test_a_tenant_gets_no_token_to_report_with(cluster: Cluster, operator: Operator, platform: None) -> None:
    cluster.kubectl("-n", TEAM, "create", "rolebinding", "minter", "--clusterrole=edit", "--user=minter")
    assert rights_settle(cluster, "minter", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    mine = ("create", "token", "default")
    assert "training Pods only" in refusal(cluster, "minter", *mine, "--audience=finetune.dev/progress")
    assert refusal(cluster, "minter", *mine, "--audience=https://elsewhere.example.com") == ""


def refusal(cluster: Cluster, user: str, *words: str, stdin: object = None) -> str:
    """What kubectl tells this user in the team's namespace, where it fails; empty where it does not."""
    command = [cluster.commands["kubectl"], "--kubeconfig", cluster.plane.kubeconfig_for(user), "-n", TEAM, *words]
    text = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    return "" if done.returncode == 0 else done.stderr


def test_a_tenant_makes_nothing_that_looks_like_a_child(cluster: Cluster, operator: Operator, platform: None) -> None:
    """Not with our label, not with an owner of ours, and not by a change of what the operator made."""
    preflight = start_job(cluster, "attacked")
    job = cluster.get("-n", TEAM, "ftj", "attacked")["metadata"]
    (pod,) = cluster.get("-n", TEAM, "pod", *preflight)["items"]
    (made,) = cluster.get("-n", TEAM, "job", *preflight)["items"]
    cluster.kubectl("-n", TEAM, "create", "rolebinding", "attacker", "--clusterrole=edit", "--user=attacker")
    assert rights_settle(cluster, "attacker", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused, spec = partial(refusal, cluster, "attacker"), {"restartPolicy": "Never", **PODS_BY_HAND}
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "attacked", "uid": job["uid"]}
    of_job = {"apiVersion": "batch/v1", "kind": "Job", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    forgeries: list[dict[str, Any]] = [
        {"labels": pod["metadata"]["labels"]},
        {"labels": pod["metadata"]["labels"], "ownerReferences": [{**of_job, "controller": True}]},
        {"ownerReferences": [{**owner, "controller": True}]},
    ]
    for number, metadata in enumerate(forgeries):
        by_hand = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"by-hand-{number}", **metadata},
            "spec": spec,
        }
        assert "only the operator creates objects" in refused("create", "-f", "-", stdin=by_hand)
    for kind, api_version, body in (
        ("Job", "batch/v1", {"spec": {"template": {"spec": spec}}}),
        ("ConfigMap", "v1", {"data": {"run.json": "{}"}}),
    ):
        meta = {"name": "by-hand", "ownerReferences": [{**owner, "controller": True}]}
        by_hand = {"apiVersion": api_version, "kind": kind, "metadata": meta, **body}
        assert "only the operator creates objects" in refused("create", "-f", "-", stdin=by_hand)
    name = pod["metadata"]["name"]
    assert "stay as the operator made them" in refused("label", "pod", name, "--overwrite", "finetune.dev/role=train")
    assert "owns can't be changed" in refused("set", "image", f"pod/{name}", "trainer=example.com/mine:1")
    apply(cluster, "ModelDeployment", "attacked", model={"uri": BASE})
    uid = cluster.get("-n", TEAM, "mdep", "attacked")["metadata"]["uid"]
    serves = ("-l", f"finetune.dev/owner-uid={uid}")
    cluster.wait("-n", TEAM, "pod", *serves, until="create")
    serving = cluster.get("-n", TEAM, "pod", *serves)["items"][0]["metadata"]["name"]
    for container in ("fetch", "server"):
        assert "owns can't be changed" in refused("set", "image", f"pod/{serving}", f"{container}=example.com/mine:1")
    orphaned = json.dumps({"metadata": {"ownerReferences": None}})
    job_name = made["metadata"]["name"]
    assert "stay as the operator made them" in refused("patch", "job", job_name, "--type=merge", "-p", orphaned)
    # What is nobody's child is nobody's business, and so is a label of the user's own.
    innocent = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "innocent"}, "spec": spec}
    assert refused("create", "-f", "-", stdin=innocent) == ""
    assert refused("label", "pod", name, "mine=yes") == ""
    assert refused("delete", "pod", name, "--wait=false") == ""


def workload_by_hand(kind: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A workload of which only the Pods have these labels, beside one of its own that it selects them by."""
    mine = {"mine": "yes"}
    template = {"metadata": {"labels": {**labels, **mine}}, "spec": {"restartPolicy": "Always", **PODS_BY_HAND}}
    once = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", **PODS_BY_HAND}}
    selected = {"selector": {"matchLabels": mine}, "template": template}
    api_version, spec = {
        "ReplicationController": ("v1", {"replicas": 1, "selector": mine, "template": template}),
        "Deployment": ("apps/v1", selected),
        "ReplicaSet": ("apps/v1", selected),
        "StatefulSet": ("apps/v1", {**selected, "serviceName": "by-hand"}),
        "DaemonSet": ("apps/v1", selected),
        "Job": ("batch/v1", {"template": once}),
        "CronJob": ("batch/v1", {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}),
    }[kind]
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": f"by-hand-{kind.lower()}"}, "spec": spec}


WORKLOADS = ("ReplicationController", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob")


def test_a_tenant_makes_no_pod_that_a_job_would_count(cluster: Cluster, operator: Operator, platform: None) -> None:
    """One that fails would end a training, by its podFailurePolicy, whatever its other labels are."""
    preflight = start_job(cluster, "counted")
    (made,) = cluster.get("-n", TEAM, "job", *preflight)["items"]
    (pod,) = cluster.get("-n", TEAM, "pod", *preflight)["items"]
    uid = made["metadata"]["uid"]
    cluster.kubectl("-n", TEAM, "create", "rolebinding", "saboteur", "--clusterrole=edit", "--user=saboteur")
    assert rights_settle(cluster, "saboteur", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused, spec = partial(refusal, cluster, "saboteur"), {"restartPolicy": "Never", **PODS_BY_HAND}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": made["metadata"]["name"], "uid": uid}
    # A Pod that has the operator's own label too is refused by the policy on children.
    batch = {name: value for name, value in pod["metadata"]["labels"].items() if name.startswith("batch.")}
    assert batch["batch.kubernetes.io/controller-uid"] == uid

    def by_hand(**metadata: Any) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand", **metadata}, "spec": spec}

    told = "only the Job controller creates the Pods of a Job"
    controlled = {"ownerReferences": [{**owner, "controller": True}]}
    for claim in ({"labels": batch, **controlled}, {"labels": batch}, controlled):
        assert told in refused("create", "-f", "-", stdin=by_hand(**claim)), claim
    # A Pod that is there already is not made one of the Job's either; that a Job is its owner for the garbage collector
    # alone is nobody's business.
    assert refused("create", "-f", "-", stdin=by_hand(ownerReferences=[owner])) == ""
    for change in ({"labels": batch}, controlled):
        patch = json.dumps({"metadata": change})
        assert told in refused("patch", "pod", "by-hand", "--type=merge", "-p", patch), change
    for kind in WORKLOADS:
        # The API server itself refuses the label of another Job in a Job's template.
        words = "batch.kubernetes.io/controller-uid" if kind == "Job" else told
        assert words in refused("create", "-f", "-", stdin=workload_by_hand(kind, batch)), kind
    # What a Job of the user's own makes stays the user's own to change, and can be let go.
    assert refused("create", "-f", "-", stdin=workload_by_hand("Job", {})) == ""
    mine = ("-l", "batch.kubernetes.io/job-name=by-hand-job")
    cluster.wait("-n", TEAM, "pod", *mine, until="create")
    assert refused("label", "pod", *mine, "mine=yes") == ""
    assert refused("label", "pod", *mine, "batch.kubernetes.io/controller-uid-") == ""
    released = "batch.kubernetes.io/controller-uid-"
    assert "stay as the operator made them" in refused("label", "pod", pod["metadata"]["name"], released)
    cluster.kubectl("-n", TEAM, "delete", "job", "by-hand-job")


def test_a_tenant_puts_nothing_in_the_place_of_what_serves(
    cluster: Cluster, operator: Operator, platform: None
) -> None:
    """Kubernetes' own controllers would make Pods that its Service selects, or run what is written into its template.

    Also by who writes in the operator's name: the API server takes any name of a field manager.
    """
    apply(cluster, "ModelDeployment", "replaced", model={"uri": BASE})
    uid = cluster.get("-n", TEAM, "mdep", "replaced")["metadata"]["uid"]
    cluster.wait("-n", TEAM, "pod", "-l", f"finetune.dev/owner-uid={uid}", until="create")
    cluster.kubectl("-n", TEAM, "create", "rolebinding", "rival", "--clusterrole=edit", "--user=rival")
    assert rights_settle(cluster, "rival", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused = partial(refusal, cluster, "rival")
    selected = cluster.get("-n", TEAM, "svc", "replaced")["spec"]["selector"]
    for kind in WORKLOADS:
        by_hand = workload_by_hand(kind, selected)
        assert "only the operator creates objects" in refused("create", "-f", "-", stdin=by_hand), kind
        assert refused("create", "-f", "-", stdin=workload_by_hand(kind, {})) == "", kind
        if kind != "Job":  # whose template nobody changes
            assert "remove it from the template" in refused("apply", "--server-side", "-f", "-", stdin=by_hand), kind
    named = "--field-manager=finetune-operator"
    for words in (
        ("set", "image", "deploy/replaced", "server=example.com/mine:1"),
        ("set", "env", "deploy/replaced", "A=b"),
    ):
        assert "stay as the operator made them" in refused(*words, named)
    for change in (
        {"selector": {"mine": "yes"}},
        {"type": "ExternalName", "externalName": "example.com", "clusterIP": ""},
    ):
        patch = json.dumps({"spec": change})
        told = refused("patch", "service", "replaced", "--type=merge", "-p", patch, named)
        assert "must stay as the operator made them" in told
    assert refused("rollout", "restart", "deploy/replaced") == ""
    assert refused("scale", "deploy/replaced", "--replicas=2") == ""


def test_nobody_execs_into_pods_where_the_platform_denies_it(
    cluster: Cluster, operator: Operator, platform: None
) -> None:
    """Whoever does writes what a Pod reports. With `edit`, and with the right to debug, which `edit` lacks."""
    (pod,) = cluster.get("-n", TEAM, "pod", *start_job(cluster, "watched"))["items"]
    may_debug = ("--verb=get,patch,update", "--resource=pods,pods/ephemeralcontainers")
    cluster.kubectl("create", "clusterrole", "debugger", *may_debug)
    cluster.kubectl("-n", TEAM, "create", "rolebinding", "debugger", "--clusterrole=debugger", "--user=intruder")
    cluster.kubectl("-n", TEAM, "create", "rolebinding", "intruder", "--clusterrole=edit", "--user=intruder")
    assert rights_settle(cluster, "intruder", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    kubeconfig = cluster.plane.kubeconfig_for("intruder")
    path = f"/api/v1/namespaces/{TEAM}/pods/{pod['metadata']['name']}"
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "debugger", "image": "example.com/mine:1", "securityContext": context}
    debugger = {"spec": {"ephemeralContainers": [container]}}
    attempts = {
        "exec": ("create", "--raw", f"{path}/exec?command=true&stdout=true", "-f", "-"),
        "attach": ("create", "--raw", f"{path}/attach?stdout=true", "-f", "-"),
        "portforward": ("create", "--raw", f"{path}/portforward?ports=29500", "-f", "-"),
        "proxy": ("get", "--raw", f"{path}/proxy/"),
        "debug": (
            "patch",
            "pod",
            pod["metadata"]["name"],
            "--subresource=ephemeralcontainers",
            "-p",
            json.dumps(debugger),
        ),
    }

    def refused() -> set[str]:
        """Which attempts the policy refuses; that there is no kubelet here is another matter."""
        command = [cluster.commands["kubectl"], "--kubeconfig", kubeconfig, "-n", TEAM]
        told = {}
        for name, words in attempts.items():
            done = subprocess.run(
                [*command, *words], input="", capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
            )
            told[name] = done.stderr
            assert "cannot" not in done.stderr, f"RBAC let it through no further: {done.stderr}"
        return {name for name, words in told.items() if "report results that gates trust" in words}

    has_policies = ("--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")
    shown = ("--show-only", "templates/execpolicy.yaml")
    objects = rendered("admission.denyExec=true", flags=(*has_policies, *shown))
    cluster.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})
    assert refused() == set()
    cluster.kubectl("label", "namespace", TEAM, "finetune.dev/deny-exec=true")
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := refused()) != attempts.keys() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found == attempts.keys()
    cluster.kubectl("label", "namespace", TEAM, "finetune.dev/deny-exec-")
    cluster.kubectl("delete", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})


def test_the_policy_on_exec_is_the_platforms_choice() -> None:
    has_policies = ("--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")
    names = [item["metadata"]["name"] for item in rendered(flags=has_policies)]
    assert not any(name.startswith("exec.") for name in names)


def test_the_operator_may_own_what_blocks_the_deletion_of_its_owner(cluster: Cluster) -> None:
    # Asked for only where admission checks it (OpenShift), and so by nothing above.
    owners = ("finetunejobs", "evaluations", "modeldeployments")
    questions = [("update", "finetune.dev", f"{plural}/finalizers") for plural in owners]
    assert all(cluster.allowed(ACCOUNT, ACCOUNT_GROUPS, questions).values())


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "edit",
            [("create", "finetunejobs"), ("patch", "evaluations"), ("delete", "modeldeployments")],
            # A user who wrote an Evaluation's status would open its gate.
            [("patch", "evaluations/status"), ("update", "finetunejobs/status"), ("create", "finetuneclasses")],
        ),
        ("view", [("list", "finetunejobs"), ("get", "evaluations")], [("create", "finetunejobs")]),
    ],
)
def test_users_may_do_what_their_role_says(
    cluster: Cluster, role: str, may: list[tuple[str, str]], may_not: list[tuple[str, str]]
) -> None:
    cluster.kubectl("-n", TEAM, "create", "rolebinding", role, f"--clusterrole={role}", f"--user=who-may-{role}")
    assert rights_settle(cluster, f"who-may-{role}", asked=[*may, *may_not], expected=may)


def test_everyone_may_see_the_classes_if_the_platform_says_so(cluster: Cluster) -> None:
    asked = [("list", "finetuneclasses"), ("patch", "finetuneclasses"), ("list", "finetunejobs")]
    assert rights_settle(cluster, "anyone", asked=asked, expected=[])
    cluster.helm("upgrade", RELEASE, str(CHART), "--set=classesVisibleToAll=true")
    assert rights_settle(cluster, "anyone", asked=asked, expected=[("list", "finetuneclasses")])


def rights_settle(
    cluster: Cluster, user: str, *, asked: Sequence[tuple[str, str]], expected: Sequence[tuple[str, str]]
) -> bool:
    """Whether the user comes to have exactly the expected rights; rules take a moment to spread."""
    questions = [(verb, "finetune.dev", resource) for verb, resource in asked]
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        answers = cluster.allowed(user, ["system:authenticated"], questions)
        if [(verb, resource) for (verb, _, resource), allowed in answers.items() if allowed] == list(expected):
            return True
        time.sleep(0.1)
    return False


# What upgrades change


def test_upgrades_keep_the_certificate_and_do_not_restart_the_operator(cluster: Cluster) -> None:
    before, pod_template = certificate(cluster), deployed_template(cluster)
    for _ in range(2):
        cluster.helm("upgrade", RELEASE, str(CHART))
    assert certificate(cluster) == before
    assert deployed_template(cluster) == pod_template


def test_another_certificate_restarts_the_operator(cluster: Cluster) -> None:
    before = deployed_template(cluster)
    cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "mine", "--from-literal=tls.crt=other")
    try:
        rendered = cluster.helm(
            "template", RELEASE, str(CHART), "--set", "progress.tls.existingSecret=mine", "--dry-run=server"
        )
    finally:
        cluster.kubectl("-n", NAMESPACE, "delete", "secret", "mine")
    objects = [item for item in yaml.safe_load_all(rendered) if item]
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    assert not [item for item in objects if item["kind"] == "Secret"]
    assert deployment["spec"]["template"]["metadata"]["annotations"] != before["metadata"]["annotations"]


def deployed_template(cluster: Cluster) -> Any:
    return cluster.get("-n", NAMESPACE, "deployment", RELEASE)["spec"]["template"]


def test_uninstalling_keeps_what_users_made_and_a_new_release_takes_it_over(
    cluster: Cluster, platform: None, operator: Operator
) -> None:
    """Last, since another release is there then. The operator ends as its Pod does, before its rights are gone."""
    trusted_by_running_pods = certificate(cluster)
    operator.end()
    # The hook's Pod would need a node.
    cluster.helm("uninstall", RELEASE, "--no-hooks")
    gone = ("-n", NAMESPACE, "get", f"deployment/{RELEASE}")
    assert ask(cluster.commands["kubectl"], "--kubeconfig", cluster.plane.kubeconfig, *gone) is None
    assert len(cluster.get("crd")["items"]) == len(KINDS)
    assert cluster.get("ftc", "cpu")
    cluster.helm("install", RELEASE, str(CHART))
    assert certificate(cluster) == trusted_by_running_pods
