"""What the chart installs, and refuses to install."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from cryptography import x509

from e2e.cluster.binaries import binaries
from e2e.cluster.machine.commands import run
from finetune_operator.metrics import job_metrics, object_metrics  # noqa: F401 - they declare their metrics
from finetune_operator.metrics.operator_metrics import DECLARED
from finetune_operator.runtime.sharding import MOST_SHARDS, Shard
from tests.integration.chart.release import CHART, NAMESPACE, RELEASE, Release, rendered

CRDS = frozenset({"CustomResourceDefinition"})
"""They are the files as they are, also for those who install them by hand."""

# What the chart installs


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("image.tagg=1", "additional properties 'tagg' not allowed"),
        ("workers=0", "minimum: got 0, want 1"),
        ("image.digest=latest", "'latest' does not match pattern"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("replicas=6", "maximum: got 6, want 5"),
        ("shards=17", "maximum: got 17, want 16"),
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


def test_the_platforms_labels_and_settings_are_on_the_operator() -> None:
    values = (
        "commonLabels.cost-centre=ml",
        "podLabels.team=platform",
        "podAnnotations.example\\.com/scrape=yes",
        "serviceAccount.annotations.example\\.com/role=reader",
        "extraEnv[0].name=HTTPS_PROXY,extraEnv[0].value=http://proxy:3128",
        "logLevel=debug",
    )
    found = rendered(*values)
    assert all(item["metadata"]["labels"]["cost-centre"] == "ml" for item in found if item["kind"] not in CRDS)
    objects = {item["kind"]: item for item in found}
    template = objects["Deployment"]["spec"]["template"]
    assert {"cost-centre", "team", "app.kubernetes.io/name"} <= template["metadata"]["labels"].keys()
    assert template["metadata"]["annotations"]["example.com/scrape"] == "yes"
    (container,) = template["spec"]["containers"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
    assert "--log-level=debug" in container["args"]
    (account,) = [
        item
        for item in found
        if item["kind"] == "ServiceAccount" and item["metadata"]["name"] == objects["Deployment"]["metadata"]["name"]
    ]
    assert account["metadata"]["annotations"] == {"example.com/role": "reader"}


def test_each_shard_has_its_own_pods_address_and_lease() -> None:
    """A selector that takes in another shard's Pods would send reports to an operator that drops them."""
    found = rendered("shards=3", "replicas=2")
    deployments, services, budgets = (
        {item["metadata"]["name"]: item["spec"] for item in found if item["kind"] == kind}
        for kind in ("Deployment", "Service", "PodDisruptionBudget")
    )
    names = [RELEASE, f"{RELEASE}-shard-1", f"{RELEASE}-shard-2"]
    assert list(deployments) == list(services) == list(budgets) == names
    pods = {name: spec["template"]["metadata"]["labels"].items() for name, spec in deployments.items()}
    for name in names:
        for selector in (
            deployments[name]["selector"]["matchLabels"],
            services[name]["selector"],
            budgets[name]["selector"]["matchLabels"],
        ):
            assert [one for one in names if selector.items() <= pods[one]] == [name]
        (container,) = deployments[name]["template"]["spec"]["containers"]
        assert f"--shard={names.index(name)}/3" in container["args"]
        assert f"--progress-url=https://{name}.{NAMESPACE}.svc:8443" in container["args"]
    (role,) = [item for item in found if item["kind"] == "Role" and item["metadata"]["name"] == RELEASE]
    (leases,) = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]
    every = [Shard(index, count).lease for count in range(1, MOST_SHARDS + 1) for index in range(count)]
    assert leases == every, "a change of the number takes nothing from who still leads"


def test_the_certificate_of_shards_names_each_of_the_most_that_there_can_be() -> None:
    """So that another number of shards needs no other certificate."""
    (secret,) = [item for item in rendered("shards=2") if item.get("type") == "kubernetes.io/tls"]
    assert secret["metadata"]["name"] == f"{RELEASE}-shards-tls", "that of one operator, which is kept, has one name"
    names = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"])).extensions
    hosts = names.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    suffixes = ["", *(f"-shard-{index}" for index in range(1, MOST_SHARDS))]
    assert hosts == [f"{RELEASE}{suffix}.{NAMESPACE}.svc" for suffix in suffixes]


def test_one_operator_is_as_it_was_without_shards() -> None:
    (deployment,) = [item for item in rendered() if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert not [argument for argument in container["args"] if "shard" in argument]
    assert deployment["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "finetune-operator",
        "app.kubernetes.io/instance": RELEASE,
    }


def test_on_openshift_the_platform_chooses_the_users() -> None:
    """Its SCC restricted-v2 refuses a Pod that names a user outside of its namespace's range."""
    users = ("runAsUser", "runAsGroup", "fsGroup")
    chosen = rendered(*(f"podSecurityContext.{user}=null" for user in users))
    contexts = [
        item["spec"]["template"]["spec"]["securityContext"] for item in chosen if item["kind"] in ("Deployment", "Job")
    ]
    assert contexts
    assert all(found == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} for found in contexts)


def test_crds_stay_when_the_release_is_uninstalled() -> None:
    """With a CRD, Kubernetes deletes all of its objects."""
    found = [item for item in rendered() if item["kind"] == "CustomResourceDefinition"]
    stored = {file.name: yaml.safe_load(file.read_text()) for file in sorted((CHART / "files" / "crds").iterdir())}
    assert [item["spec"] for item in found] == [crd["spec"] for crd in stored.values()]
    for item, crd in zip(found, stored.values(), strict=True):
        assert item["metadata"] == {**crd["metadata"], "annotations": {"helm.sh/resource-policy": "keep"}}


def test_its_pod_passes_the_restricted_pod_security_standard(release: Release) -> None:
    # The namespace enforces it: the Pod would not exist.
    release.wait("-n", NAMESPACE, "pod", "-l", f"app.kubernetes.io/instance={RELEASE}", until="create")


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


# What nobody may do


def test_the_policy_on_exec_is_the_platforms_choice() -> None:
    has_policies = ("--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")
    names = [item["metadata"]["name"] for item in rendered(flags=has_policies)]
    assert not any(name.startswith("exec.") for name in names)


# OpenAI's API

OPENAI = ("openai.namespaces[0].name=team-a", "openai.namespaces[0].className=cpu")


def test_openais_api_is_in_no_namespace_that_did_not_ask_for_it() -> None:
    def names(*values: str) -> set[tuple[str, str | None]]:
        found = rendered(*values)
        meta = [(item["kind"], item["metadata"]) for item in found if item["metadata"]["name"] == f"{RELEASE}-openai"]
        return {(kind, metadata.get("namespace")) for kind, metadata in meta}

    assert names() == set()
    per_namespace = ("ServiceAccount", "Role", "RoleBinding", "Deployment", "Service", "NetworkPolicy")
    of_cluster = {("ClusterRole", None), ("ClusterRoleBinding", None)}
    assert names(*OPENAI) == of_cluster | {(kind, "team-a") for kind in per_namespace}


def test_openais_api_may_do_nothing_but_what_it_does() -> None:
    roles = [item for item in rendered(*OPENAI) if item["metadata"]["name"] == f"{RELEASE}-openai" and "rules" in item]
    rights = {
        (item["kind"], resource, verb)
        for item in roles
        for rule in item["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    jobs = {("Role", "finetunejobs", verb) for verb in ("get", "list", "create", "patch")}
    assert rights == jobs | {
        ("Role", "localsubjectaccessreviews", "create"),
        ("ClusterRole", "tokenreviews", "create"),
        ("ClusterRole", "finetuneclasses", "get"),
    }


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("openai.namespaces[0].name=A", "does not match pattern"),
        ("openai.namespaces[0].name=a", "missing property 'className'"),
        ("openai.namespace=a", "additional properties 'namespace' not allowed"),
    ],
)
def test_a_wrong_value_of_openais_api_is_refused(value: str, complaint: str) -> None:
    helm = binaries(["helm"])["helm"]
    done = subprocess.run(
        [helm, "template", RELEASE, CHART, "--set", value], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert complaint in done.stderr


def test_the_pod_of_openais_api_passes_the_restricted_pod_security_standard(release: Release) -> None:
    keys = ("openai.namespaces[0].credentialsSecretName=s3", "openai.namespaces[0].tlsSecretName=tls")
    (deployment,) = [
        item
        for item in rendered(*OPENAI, *keys)
        if item["metadata"].get("namespace") == "team-a" and item["kind"] == "Deployment"
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "openai"},
        "spec": deployment["spec"]["template"]["spec"],
    }
    pod["spec"]["serviceAccountName"] = "default"
    # The release's namespace enforces it.
    release.kubectl("-n", NAMESPACE, "create", "--dry-run=server", "-f", "-", stdin=pod)
