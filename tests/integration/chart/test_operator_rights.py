"""What the operator does with the chart's rights: each test needs some of them, together they need all."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from base64 import b64decode
from typing import Any

import aiohttp
import pytest

from e2e.cluster.machine.ports import free_ports
from finetune_api.kinds import KINDS
from finetune_api.pod_contracts.progress import PROGRESS_AUDIENCE
from finetune_operator.core.ownership import ROLE_LABEL, Owner, labels
from finetune_operator.pods.roles import CANARY_ROLE, GATEWAY_ROLE, SERVE_ROLE, TRAIN_ROLE
from tests.integration.chart.release import (
    BASE,
    CLASS,
    DATA,
    NAMESPACE,
    RELEASE,
    ROOT,
    TEAM,
    TRAINER_IMAGE,
    TUNED,
    WAIT_SECONDS,
    Operator,
    Release,
    account_kubeconfig,
    apply,
    certificate,
    refusal,
    rendered,
    rights_settle,
    start_evaluation,
    start_job,
)

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
ACCOUNT_GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated")


# What the operator does with the chart's rights: each test needs some of them, together they need all


@pytest.mark.parametrize(
    ("name", "kind", "roles", "port"),
    [
        ("training", "FineTuneJob", {TRAIN_ROLE}, "metrics"),
        ("gateways", "ModelDeployment", {GATEWAY_ROLE}, "metrics"),
        ("servers", "ModelDeployment", {SERVE_ROLE, CANARY_ROLE}, "http"),
    ],
)
def test_a_pod_monitor_selects_the_port_of_the_pods_of_its_roles(
    name: str, kind: str, roles: set[str], port: str
) -> None:
    assert "PodMonitor" not in {item["kind"] for item in rendered()}
    found = [item for item in rendered("metrics.podMonitor.enabled=true") if item["kind"] == "PodMonitor"]
    (monitor,) = [item for item in found if item["metadata"]["name"].endswith(f"-{name}")]
    (expression,) = monitor["spec"]["selector"]["matchExpressions"]
    assert (expression["key"], expression["operator"], set(expression["values"])) == (ROLE_LABEL, "In", roles)
    for role in roles:
        of_pod = labels(Owner(kind, TEAM, "router", "u-1"), role)
        assert monitor["spec"]["selector"]["matchLabels"].items() <= of_pod.items()
        assert set(monitor["spec"]["podTargetLabels"]) <= of_pod.keys()
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == [port]
    assert len(found) == 3


def test_a_class_becomes_ready(release: Release, platform: None) -> None:
    release.wait("-n", "default", "events", "--field-selector=involvedObject.kind=FineTuneClass", until="create")


def test_a_job_is_validated_and_suspended(release: Release, platform: None) -> None:
    preflight = start_job(release, "suspended")
    (child,) = release.get("-n", TEAM, "pod,job,configmap", *preflight)["items"]
    assert child["spec"]["containers"][0]["image"] == TRAINER_IMAGE
    release.wait_reason("ftj/suspended", "Validating")
    release.kubectl("-n", TEAM, "patch", "ftj", "suspended", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    release.wait_reason("ftj/suspended", "Suspended")
    release.wait("-n", TEAM, "pod", *preflight, until="delete")
    release.wait("-n", TEAM, "events", "--field-selector=reason=Suspended", until="create")


def test_an_evaluation_starts(release: Release, platform: None) -> None:
    start_evaluation(release, "judge")
    release.wait_reason("eval/judge", "Evaluating")


def test_a_deletion_that_is_refused_is_reported(release: Release, platform: None) -> None:
    """Somebody's webhook guards the Job and does not answer; what is left of the Job is read to see if it may run."""
    start_evaluation(release, "guarded")
    release.wait_reason("eval/guarded", "Evaluating")
    (job,) = release.get("-n", TEAM, "job", "-l", "finetune.dev/name=guarded")["items"]
    name = job["metadata"]["name"]
    release.kubectl("create", "-f", "-", stdin=unanswered_webhook("guarded"))
    try:
        assert deletion_comes_to_be_refused(release, name)
        release.kubectl("-n", TEAM, "patch", "eval", "guarded", "--type=merge", "-p", '{"spec": {"suspend": true}}')
        release.wait_reason("eval/guarded", "ObjectRejected")
    finally:
        release.kubectl("delete", "validatingwebhookconfiguration", "guarded")
    told = release.get("-n", TEAM, "eval", "guarded")["status"]["conditions"]
    assert any(f"refuses to delete Job {name}, which may still run" in one["message"] for one in told)


def test_a_dataset_starts_and_is_suspended(release: Release, platform: None) -> None:
    apply(release, "Dataset", "tickets", source={"uri": DATA})
    pods = ("pod", "-l", "finetune.dev/name=tickets,finetune.dev/role=dataset")
    release.wait("-n", TEAM, *pods, until="create")
    release.wait_reason("ftds/tickets", "Building")
    release.kubectl("-n", TEAM, "patch", "ftds", "tickets", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    release.wait_reason("ftds/tickets", "Suspended")


def test_the_trials_of_a_sweep_are_created_suspended_and_cancelled(release: Release, platform: None) -> None:
    dataset = {"training": {"uri": DATA}, "validation": {"splitPercent": 10}}
    search = {"algorithm": "Grid", "parameters": [{"path": "adapter.lora.rank", "numbers": [8, 16]}]}
    template = {"spec": {"model": {"uri": BASE}, "dataset": dataset}}
    apply(release, "FineTuneSweep", "search", template=template, search=search)
    trials = ("ftj", "-l", "finetune.dev/name=search,finetune.dev/role=trial")
    release.wait("-n", TEAM, *trials, until="create")
    release.wait_reason("fts/search", "Searching")
    release.kubectl("-n", TEAM, "patch", "fts", "search", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    release.wait("-n", TEAM, *trials, until="jsonpath={.spec.suspend}=true")
    release.kubectl("-n", TEAM, "patch", "fts", "search", "--type=merge", "-p", '{"spec": {"cancel": true}}')
    release.wait("-n", TEAM, *trials, until="jsonpath={.spec.cancel}=true")
    release.wait_reason("fts/search", "Cancelled")


def test_a_model_is_served_and_replaced(release: Release, platform: None) -> None:
    apply(release, "ModelDeployment", "chat", model={"uri": BASE}, replicas=0)
    release.wait_reason("mdep/chat", "Available")
    (first,) = served(release)
    assert release.get("-n", TEAM, "service", "chat")["spec"]["ports"][0]["port"] == 80
    apply(release, "ModelDeployment", "chat", model={"uri": TUNED}, replicas=2)
    release.wait("-n", TEAM, "poddisruptionbudget", "-l", "finetune.dev/name=chat", until="create")
    apply(release, "ModelDeployment", "chat", model={"uri": TUNED}, replicas=0)
    release.wait("-n", TEAM, f"configmap/{first}", until="delete")
    (second,) = served(release)
    assert second != first


def test_a_gateway_comes_and_goes(release: Release, platform: None) -> None:
    apply(release, "ModelDeployment", "bounded", model={"uri": BASE}, gateway={"replicas": 2})
    owned = ("-l", "finetune.dev/name=bounded,finetune.dev/role=gateway")
    release.wait("-n", TEAM, "deployment", *owned, until="create")
    (gateway,) = release.get("-n", TEAM, "deployment", *owned)["items"]
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert container["image"] == operator_image()
    release.wait("-n", TEAM, "pod", *owned, until="create")
    apply(release, "ModelDeployment", "bounded", model={"uri": BASE})
    release.wait("-n", TEAM, "deployment", *owned, until="delete")
    release.wait("-n", TEAM, "poddisruptionbudget", "-l", "finetune.dev/name=bounded", until="delete")


async def test_the_gateway_of_a_canary_reports_what_it_counts(
    release: Release, operator: Operator, platform: None
) -> None:
    canary = {"rollout": {"type": "Canary"}, "gateway": {"replicas": 1}}
    apply(release, "ModelDeployment", "proved", model={"uri": BASE}, **canary)
    owned = ("-l", "finetune.dev/name=proved,finetune.dev/role=gateway")
    release.wait("-n", TEAM, "pod", *owned, until="create")
    (pod,) = release.get("-n", TEAM, "pod", *owned)["items"]
    name = f"--bound-object-name={pod['metadata']['name']}"
    token = ("-n", TEAM, "create", "token", "default", f"--audience={PROGRESS_AUDIENCE}", "--bound-object-kind=Pod")
    path = f"/v1alpha1/namespaces/{TEAM}/modeldeployments/{{}}/traffic"
    bound = release.kubectl(*token, name).strip()
    assert await report(release, operator, path.format("proved"), bound, {"source": "a" * 32, "split": ""}) == 200
    assert await report(release, operator, path.format("another"), bound, {"source": "a" * 32, "split": ""}) == 403


def test_a_deployment_waits_for_the_gate(release: Release, platform: None) -> None:
    apply(release, "ModelDeployment", "gated", model={"uri": BASE}, gate={"evaluationRef": {"name": "none"}})
    release.wait_reason("mdep/gated", "ReferenceNotFound")


async def test_a_pod_reports_its_own_progress(release: Release, operator: Operator, platform: None) -> None:
    evaluation = start_evaluation(release, "reporting")
    (pod,) = (item["metadata"] for item in release.get("-n", TEAM, "pod", *evaluation)["items"])
    path = f"/v1alpha1/namespaces/{TEAM}/evaluations/reporting/attempts/"
    own = path + pod["labels"]["batch.kubernetes.io/job-name"]
    token = ("-n", TEAM, "create", "token", "default")
    audience = f"--audience={PROGRESS_AUDIENCE}"
    bound = release.kubectl(*token, audience, "--bound-object-kind=Pod", f"--bound-object-name={pod['name']}").strip()
    assert await report(release, operator, own, bound) == 200
    assert await report(release, operator, path + "another", bound) == 403
    for flags in ((), (audience,)):
        assert await report(release, operator, own, release.kubectl(*token, *flags).strip()) == 401


def test_a_job_of_a_class_that_reclaims_its_storage_is_held_until_that_is_done(
    release: Release, operator: Operator, platform: None
) -> None:
    reclaiming = {**CLASS, "metadata": {"name": "reclaiming"}, "spec": {**CLASS["spec"], "reclaimPolicy": "Delete"}}
    release.kubectl("apply", "-f", "-", stdin=reclaiming)
    spec = {"className": "reclaiming", "model": {"uri": BASE}, "dataset": {"training": {"uri": DATA}}}
    apply(release, "FineTuneJob", "held", **spec)
    release.wait("-n", TEAM, "ftj/held", until="jsonpath={.metadata.finalizers}")
    uid = release.get("-n", TEAM, "ftj", "held")["metadata"]["uid"]
    release.wait_reason("ftj/held", "Validating")
    release.kubectl("-n", TEAM, "delete", "ftj", "held", "--wait=false")
    release.wait("-n", TEAM, "job", "-l", f"finetune.dev/owner-uid={uid},finetune.dev/role=delete", until="create")


def test_the_account_of_the_uninstallation_releases_what_is_held(
    release: Release, operator: Operator, platform: None
) -> None:
    reclaiming = {**CLASS, "metadata": {"name": "reclaiming"}, "spec": {**CLASS["spec"], "reclaimPolicy": "Delete"}}
    release.kubectl("apply", "-f", "-", stdin=reclaiming)
    spec = {"className": "reclaiming", "model": {"uri": BASE}, "dataset": {"training": {"uri": DATA}}}
    apply(release, "FineTuneJob", "released", **spec)
    release.wait("-n", TEAM, "ftj/released", until="jsonpath={.metadata.finalizers}")
    hook = [item for item in rendered() if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    (job,) = [item for item in hook if item["kind"] == "Job"]
    account = job["spec"]["template"]["spec"]["serviceAccountName"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    release.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": hook})
    release.wait("-n", NAMESPACE, "pod", "-l", f"job-name={job['metadata']['name']}", until="create")
    config = account_kubeconfig(release, account)
    words = [sys.executable, "-m", "finetune_operator", *container["args"], f"--kubeconfig={config}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_SECONDS, env=environment, check=False)
    release.kubectl("delete", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": hook})
    assert done.returncode == 0, done.stderr
    assert f"{TEAM}/released" in done.stdout


def test_nothing_was_refused(operator: Operator) -> None:
    refusals = [line for line in operator.log.read_text().splitlines() if "Forbidden" in line or "forbidden" in line]
    assert not refusals


async def report(release: Release, operator: Operator, path: str, token: str, body: Any = None) -> int:
    """Send a report as a Pod would, of progress or another one, checking the certificate against the chart's CA and
    Service.
    """
    trusted = ssl.create_default_context(cadata=b64decode(certificate(release)["ca.crt"]).decode())
    trusted.verify_flags |= ssl.VERIFY_X509_STRICT
    status = {"lastUpdatedTime": "2026-01-01T00:00:00Z", "metrics": [{"name": "total_steps", "value": "10"}]}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.post(
            f"https://127.0.0.1:{operator.progress_port}{path}",
            json=body or {"trainerStatus": status},
            headers={"Authorization": f"Bearer {token}"},
            ssl=trusted,
            server_hostname=f"{RELEASE}.{NAMESPACE}.svc",
        ) as answer,
    ):
        return answer.status


def operator_image() -> str:
    """The image of the operator's own container, in the chart."""
    (deployment,) = [one for one in rendered() if one["kind"] == "Deployment" and one["metadata"]["name"] == RELEASE]
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def unanswered_webhook(name: str) -> dict[str, Any]:
    """Judges the deletion of the Jobs of one object."""
    (port,) = free_ports(1)
    rule = {"apiGroups": ["batch"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["jobs"]}
    webhook = {
        "name": "guard.example.com",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
        "rules": [rule],
        "objectSelector": {"matchLabels": {"finetune.dev/name": name}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "timeoutSeconds": 1,
    }
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    return {**head, "metadata": {"name": name}, "webhooks": [webhook]}


def deletion_comes_to_be_refused(release: Release, job: str) -> bool:
    """The API server hears of a webhook a moment after it was made."""
    access = [str(release.commands["kubectl"]), f"--kubeconfig={release.plane.kubeconfig}", "-n", TEAM]
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        asked = [*access, "delete", "job", job, "--dry-run=server"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
        if "failed calling webhook" in done.stderr:
            return True
        time.sleep(0.1)
    return False


def served(release: Release) -> list[str]:
    found = release.get("-n", TEAM, "configmap", "-l", "finetune.dev/role=serve,finetune.dev/name=chat")["items"]
    return [item["metadata"]["name"] for item in found]


# What nobody may do


NOT_OF_A_TRIAL = [kind.plural for kind in KINDS if kind.name not in ("FineTuneJob", "Evaluation")]
"""What no sweep makes; the account's admission policy allows it only those of its own trials."""


def test_the_operator_may_do_nothing_that_it_does_not_need(release: Release) -> None:
    questions = [
        *((verb, "", "secrets") for verb in ("get", "list", "watch", "create", "patch", "update", "delete")),
        *((verb, "", "pods") for verb in ("patch", "update", "deletecollection")),
        ("create", "", "pods/exec"),
        ("get", "", "pods/log"),
        ("create", "", "serviceaccounts/token"),
        ("impersonate", "", "users"),
        *((verb, "rbac.authorization.k8s.io", "clusterroles") for verb in ("bind", "escalate", "create", "update")),
        ("get", "", "nodes"),
        ("list", "", "namespaces"),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions"),
        *((verb, "finetune.dev", kind.plural) for kind in KINDS for verb in ("update", "delete")),
        *((verb, "finetune.dev", kind) for kind in NOT_OF_A_TRIAL for verb in ("create", "patch")),
        *((verb, "coordination.k8s.io", "leases") for verb in ("get", "list", "create", "update", "delete")),
        *((verb, "", "configmaps") for verb in ("get", "update", "deletecollection")),
        *((verb, "", "services") for verb in ("update", "deletecollection")),
        *((verb, "apps", "deployments") for verb in ("update", "deletecollection")),
        *((verb, "policy", "poddisruptionbudgets") for verb in ("get", "update", "deletecollection")),
        *((verb, "batch", "jobs") for verb in ("get", "patch", "update", "deletecollection")),
        *((verb, "", "events") for verb in ("get", "watch", "patch", "delete")),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
    ]
    answers = release.allowed(ACCOUNT, ACCOUNT_GROUPS, questions)
    assert [question for question, allowed in answers.items() if allowed] == []


def test_a_tenant_gets_no_token_to_report_with(release: Release, operator: Operator, platform: None) -> None:
    release.kubectl("-n", TEAM, "create", "rolebinding", "minter", "--clusterrole=edit", "--user=minter")
    assert rights_settle(release, "minter", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    mine = ("create", "token", "default")
    assert "only kubelets may request tokens" in refusal(release, "minter", *mine, "--audience=finetune.dev/progress")
    assert refusal(release, "minter", *mine, "--audience=https://elsewhere.example.com") == ""


def test_the_operator_may_own_what_blocks_the_deletion_of_its_owner(release: Release) -> None:
    # Asked for only where admission checks it (OpenShift), and so by nothing above.
    owners = ("finetunejobs", "evaluations", "modeldeployments", "finetunesweeps", "datasets")
    questions = [("update", "finetune.dev", f"{plural}/finalizers") for plural in owners]
    assert all(release.allowed(ACCOUNT, ACCOUNT_GROUPS, questions).values())
