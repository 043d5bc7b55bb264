"""What tenants may do, and what nobody may."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from tests.integration.chart.release import (
    BASE,
    CHART,
    NAMESPACE,
    PODS_BY_HAND,
    RELEASE,
    TEAM,
    WAIT_SECONDS,
    Operator,
    Release,
    apply,
    refusal,
    rendered,
    rights_settle,
    start_evaluation,
    start_job,
)

# What nobody may do


def test_a_tenant_makes_nothing_that_looks_like_a_child(release: Release, operator: Operator, platform: None) -> None:
    """Not with our label, not with an owner of ours, and not by a change of what the operator made."""
    preflight = start_job(release, "attacked")
    job = release.get("-n", TEAM, "ftj", "attacked")["metadata"]
    (pod,) = release.get("-n", TEAM, "pod", *preflight)["items"]
    (made,) = release.get("-n", TEAM, "job", *start_evaluation(release, "attacked"))["items"]
    release.kubectl("-n", TEAM, "create", "rolebinding", "attacker", "--clusterrole=edit", "--user=attacker")
    assert rights_settle(release, "attacker", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused, spec = partial(refusal, release, "attacker"), {"restartPolicy": "Never", **PODS_BY_HAND}
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
    apply(release, "ModelDeployment", "attacked", model={"uri": BASE})
    uid = release.get("-n", TEAM, "mdep", "attacked")["metadata"]["uid"]
    serves = ("-l", f"finetune.dev/owner-uid={uid}")
    release.wait("-n", TEAM, "pod", *serves, until="create")
    serving = release.get("-n", TEAM, "pod", *serves)["items"][0]["metadata"]["name"]
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


def test_a_tenant_puts_no_configmap_in_the_place_of_one_that_tells_a_pod_what_to_do(
    release: Release, operator: Operator, platform: None
) -> None:
    """A Pod finds it by its name alone, without our labels and owners, when it starts: after a scale-up, say."""
    apply(release, "ModelDeployment", "replaced", model={"uri": BASE})
    release.kubectl("-n", TEAM, "create", "rolebinding", "replacer", "--clusterrole=edit", "--user=replacer")
    assert rights_settle(release, "replacer", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused = partial(refusal, release, "replacer")
    for name in ("replaced-evaluate-0123abcd", "replaced-serve-0123abcd"):
        forged: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        for data in ({"data": {"run.json": "{}"}}, {"binaryData": {"run.json": "e30="}}):
            said = refused("create", "-f", "-", stdin={**forged, **data})
            assert "only the operator writes the ConfigMaps that tell the Pods" in said
        assert refused("create", "-f", "-", stdin={**forged, "data": {"other.json": "{}"}}) == ""
        later = json.dumps({"data": {"run.json": "{}"}})
        assert "only the operator writes" in refused("patch", "configmap", name, "--type=merge", "-p", later)
        # Of another name, it tells no Pod anything.
        elsewhere = {**forged, "metadata": {"name": f"my-{name[:-1]}"}, "data": {"run.json": "{}"}}
        assert refused("create", "-f", "-", stdin=elsewhere) == ""
    uid = release.get("-n", TEAM, "mdep", "replaced")["metadata"]["uid"]
    made = ("-l", f"finetune.dev/owner-uid={uid}")
    release.wait("-n", TEAM, "configmap", *made, until="create")
    (config_map,) = release.get("-n", TEAM, "configmap", *made)["items"]
    name = config_map["metadata"]["name"]
    assert refused("label", "configmap", name, "mine=yes") == "", "the operator's own may be labelled"


def test_a_tenant_does_not_change_what_a_pod_is_told_to_do(
    release: Release, operator: Operator, platform: None
) -> None:
    """In an annotation of the Pod, or of the template of a Job that waits in a queue, which Kueue has to change."""
    preflight = start_job(release, "told")
    (pod,) = release.get("-n", TEAM, "pod", *preflight)["items"]
    meta = pod["metadata"]
    labels = {"finetune.dev/owner-uid": meta["labels"]["finetune.dev/owner-uid"]}
    run = {"finetune.dev/run": meta["annotations"]["finetune.dev/run"]}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, **PODS_BY_HAND}
    template = {"metadata": {"labels": labels, "annotations": run}, "spec": spec}
    class_ = release.get("finetuneclass", "cpu")
    by = {name: class_[name] for name in ("apiVersion", "kind")} | {
        "name": "cpu",
        "uid": class_["metadata"]["uid"],
        "controller": True,
    }
    queued = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "queued", "labels": labels, "ownerReferences": [by]},
        "spec": {"suspend": True, "template": template},
    }
    operators = f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}"
    release.kubectl(operators, "-n", TEAM, "create", "-f", "-", stdin=queued)
    release.kubectl("-n", TEAM, "create", "rolebinding", "forger", "--clusterrole=edit", "--user=forger")
    assert rights_settle(release, "forger", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused = partial(refusal, release, "forger")
    for change in ({"finetune.dev/run": "{}"}, {"finetune.dev/progress-ca": "mine"}, {"finetune.dev/run": None}):
        of_pod = json.dumps({"metadata": {"annotations": change}})
        of_template = json.dumps({"spec": {"template": {"metadata": {"annotations": change}}}})
        for kind, name, patch in (("pod", pod["metadata"]["name"], of_pod), ("job", "queued", of_template)):
            said = refused("patch", kind, name, "--type=merge", "-p", patch)
            assert "the run configuration of a Pod must stay as the operator made them" in said
    placed = json.dumps({"spec": {"template": {"metadata": {"annotations": {"mine": "yes"}}}}})
    assert refused("patch", "job", "queued", "--type=merge", "-p", placed) == ""


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


def test_a_tenant_makes_no_pod_that_a_job_would_count(release: Release, operator: Operator, platform: None) -> None:
    """One that fails would end a training, by its podFailurePolicy, whatever its other labels are."""
    evaluation = start_evaluation(release, "counted")
    (made,) = release.get("-n", TEAM, "job", *evaluation)["items"]
    (pod,) = release.get("-n", TEAM, "pod", *evaluation)["items"]
    uid = made["metadata"]["uid"]
    release.kubectl("-n", TEAM, "create", "rolebinding", "saboteur", "--clusterrole=edit", "--user=saboteur")
    assert rights_settle(release, "saboteur", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused, spec = partial(refusal, release, "saboteur"), {"restartPolicy": "Never", **PODS_BY_HAND}
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
    release.wait("-n", TEAM, "pod", *mine, until="create")
    assert refused("label", "pod", *mine, "mine=yes") == ""
    assert refused("label", "pod", *mine, "batch.kubernetes.io/controller-uid-") == ""
    released = "batch.kubernetes.io/controller-uid-"
    assert "stay as the operator made them" in refused("label", "pod", pod["metadata"]["name"], released)
    release.kubectl("-n", TEAM, "delete", "job", "by-hand-job")


def test_a_tenant_puts_nothing_in_the_place_of_what_serves(
    release: Release, operator: Operator, platform: None
) -> None:
    """Kubernetes' own controllers would make Pods that its Service selects, or run what is written into its template.

    Also by who writes in the operator's name: the API server takes any name of a field manager.
    """
    apply(release, "ModelDeployment", "replaced", model={"uri": BASE})
    uid = release.get("-n", TEAM, "mdep", "replaced")["metadata"]["uid"]
    release.wait("-n", TEAM, "pod", "-l", f"finetune.dev/owner-uid={uid}", until="create")
    release.kubectl("-n", TEAM, "create", "rolebinding", "rival", "--clusterrole=edit", "--user=rival")
    assert rights_settle(release, "rival", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    refused = partial(refusal, release, "rival")
    selected = release.get("-n", TEAM, "svc", "replaced")["spec"]["selector"]
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
    release: Release, operator: Operator, platform: None
) -> None:
    """Whoever does writes what a Pod reports. With `edit`, and with the right to debug, which `edit` lacks."""
    (pod,) = release.get("-n", TEAM, "pod", *start_job(release, "watched"))["items"]
    may_debug = ("--verb=get,patch,update", "--resource=pods,pods/ephemeralcontainers")
    release.kubectl("create", "clusterrole", "debugger", *may_debug)
    release.kubectl("-n", TEAM, "create", "rolebinding", "debugger", "--clusterrole=debugger", "--user=intruder")
    release.kubectl("-n", TEAM, "create", "rolebinding", "intruder", "--clusterrole=edit", "--user=intruder")
    assert rights_settle(release, "intruder", asked=[("create", "finetunejobs")], expected=[("create", "finetunejobs")])
    kubeconfig = release.plane.kubeconfig_for("intruder")
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
        command = [release.commands["kubectl"], "--kubeconfig", kubeconfig, "-n", TEAM]
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
    release.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})
    assert refused() == set()
    release.kubectl("label", "namespace", TEAM, "finetune.dev/deny-exec=true")
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := refused()) != attempts.keys() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found == attempts.keys()
    release.kubectl("label", "namespace", TEAM, "finetune.dev/deny-exec-")
    release.kubectl("delete", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})


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
    release: Release, role: str, may: list[tuple[str, str]], may_not: list[tuple[str, str]]
) -> None:
    release.kubectl("-n", TEAM, "create", "rolebinding", role, f"--clusterrole={role}", f"--user=who-may-{role}")
    assert rights_settle(release, f"who-may-{role}", asked=[*may, *may_not], expected=may)


def test_everyone_may_see_the_classes_if_the_platform_says_so(release: Release) -> None:
    asked = [("list", "finetuneclasses"), ("patch", "finetuneclasses"), ("list", "finetunejobs")]
    assert rights_settle(release, "anyone", asked=asked, expected=[])
    release.helm("upgrade", RELEASE, str(CHART), "--set=classesVisibleToAll=true")
    assert rights_settle(release, "anyone", asked=asked, expected=[("list", "finetuneclasses")])
