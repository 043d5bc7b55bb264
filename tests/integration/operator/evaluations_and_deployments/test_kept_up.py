"""What serves is kept as it was applied, whatever its model, its gate and its class are doing. Only the revision waits.

Who meddles does it with the requests of kubectl; the API server, the Deployment controller and the HPA are real.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.termination_message import to_termination_message
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import RESULT
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.serving import (
    STRATEGIC,
    all_are_ready,
    answers_until,
    becomes_available,
    edit,
    expect_made_again,
    expect_spec,
    quiet_versions,
    raise_gate,
    ready_message,
    scale,
    serves,
    template,
)
from tests.integration.operator.test_metrics import samples

pytestmark = pytest.mark.usefixtures("operator")

SERVER = {"name": "server"}
LOOKS = ("finetune_operator_reconciliations_total", ("ModelDeployment", "ok"))


def set_template(change: Object) -> Callable[[Api], None]:
    return lambda api: edit(api, {"template": {"spec": change}})


def disown(managed: Object) -> Callable[[Api], None]:
    """Another image and variable, with the API server's account of whose fields they are set to this in one request."""
    server = {**SERVER, "image": "example.com/other:1", "env": [{"name": "A", "value": "b"}]}
    body = {"metadata": {"managedFields": [managed]}, "spec": {"template": {"spec": {"containers": [server]}}}}
    return lambda api: api.request("PATCH", api.path("Deployment", "router"), body, STRATEGIC)


OURS_AS_ONE_LEAF = {
    "manager": "finetune-operator",
    "operation": "Apply",
    "apiVersion": "apps/v1",
    "fieldsType": "FieldsV1",
    "fieldsV1": {"f:spec": {}},
}

MEDDLING: dict[str, Callable[[Api], None]] = {
    "scale to nothing": lambda api: scale(api, "Deployment", 0),
    "scale up": lambda api: scale(api, "Deployment", 5),
    "set image": set_template({"containers": [{**SERVER, "image": "example.com/other:1"}]}),
    "set env": set_template({"containers": [{**SERVER, "env": [{"name": "A", "value": "b"}]}]}),
    "set env of the init container": set_template(
        {"initContainers": [{"name": "fetch", "env": [{"name": "A", "value": "b"}]}]}
    ),
    "set resources": set_template({"containers": [{**SERVER, "resources": {"limits": {"cpu": "1"}}}]}),
    "another command": set_template({"containers": [{**SERVER, "command": ["sleep", "9"]}]}),
    "a container beside ours": set_template({"containers": [{"name": "other", "image": "example.com/other:1"}]}),
    "a service account": set_template({"serviceAccountName": "default"}),
    "privileged": set_template({"containers": [{**SERVER, "securityContext": {"readOnlyRootFilesystem": False}}]}),
    "a volume less": set_template(
        {
            "volumes": [{"name": "tmp", "$patch": "delete"}],
            "containers": [{**SERVER, "volumeMounts": [{"mountPath": "/tmp", "$patch": "delete"}]}],
            "initContainers": [{"name": "fetch", "volumeMounts": [{"mountPath": "/tmp", "$patch": "delete"}]}],
        }
    ),
    "rollout pause": lambda api: edit(api, {"paused": True}),
    "another strategy": lambda api: edit(api, {"strategy": {"type": "Recreate", "rollingUpdate": None}}),
}


DISOWNING: dict[str, Callable[[Api], None]] = {
    "another image, and managedFields emptied": disown({}),
    "another image, and managedFields without members": disown(OURS_AS_ONE_LEAF),
}
"""Of a ModelDeployment of their own: a field that is changed five times is contested, and these take two looks each."""


@pytest.mark.parametrize("waits", [False, True], ids=["available", "the next revision waits"])
@pytest.mark.parametrize("meddling", [MEDDLING, DISOWNING], ids=["fields", "whose fields they are"])
def test_what_others_change_in_the_deployment_is_put_right(
    api: Api, meddling: dict[str, Callable[[Api], None]], waits: bool
) -> None:
    serves(api)
    if waits:
        raise_gate(api)
    applied = api.get("Deployment", "router")["spec"]
    for name, meddle in meddling.items():
        meddle(api)
        assert api.get("Deployment", "router")["metadata"]["generation"] > 1, name
        expect_spec(api, "Deployment", applied)
    (server,) = [item for item in template(api)["containers"]]
    assert server["image"] == "example.com/trainer:1"


def test_what_others_change_in_the_service_is_put_right(api: Api) -> None:
    serves(api)
    raise_gate(api)
    applied = api.get("Service", "router")["spec"]
    for change in ({"selector": {"app": "other"}}, {"ports": [{"name": "http", "port": 80, "targetPort": 9999}]}):
        api.patch("Service", "router", {"spec": change}, query="fieldManager=kubectl-set")
        expect_spec(api, "Service", applied)


def test_the_service_leads_to_the_pods_and_nowhere_else(api: Api) -> None:
    serves(api)
    applied = api.get("Service", "router")["spec"]
    api.patch("Service", "router", {"spec": {"type": "LoadBalancer"}})
    expect_spec(api, "Service", applied)
    elsewhere = {"type": "ExternalName", "externalName": "elsewhere.example.com", "clusterIP": "", "clusterIPs": None}
    api.patch("Service", "router", {"spec": elsewhere})
    another_address = ("clusterIP", "clusterIPs")

    def leads_to_the_pods() -> bool:
        found = api.get("Service", "router")["spec"]
        return all(found.get(name) == value for name, value in applied.items() if name not in another_address)

    wait_for(leads_to_the_pods, "the Service is as it was, with another address")


def test_what_is_deleted_is_made_again_while_the_next_revision_waits(api: Api) -> None:
    deployment = serves(api)
    raise_gate(api)
    (config_map,) = api.children_of(deployment, "serve", "ConfigMap")
    for kind, name in (("Service", "router"), ("ConfigMap", config_map["metadata"]["name"]), ("Deployment", "router")):
        gone = {**api.get(kind, name), "kind": kind}
        api.delete(kind, name)
        again = expect_made_again(api, gone)
        assert again["metadata"]["ownerReferences"][0]["uid"] == deployment["metadata"]["uid"]
    api.wait("ModelDeployment", "router", lambda found: found["status"].get("readyReplicas", 0) == 0)
    # Those of the Deployment that was deleted may still be there.
    served = answers_until(api, deployment, lambda found: found["status"].get("readyReplicas") == 1)
    assert condition(served, "Ready")["reason"] == "GateFailed"


def test_a_forged_run_configuration_is_recreated(api: Api) -> None:
    """Immutable, it can't be changed; but whoever may delete ConfigMaps can put another one in its place."""
    deployment = serves(api)
    (config_map,) = api.children_of(deployment, "serve", "ConfigMap")
    name, meta = config_map["metadata"]["name"], config_map["metadata"]
    kept = {key: meta[key] for key in ("name", "labels", "annotations", "ownerReferences")}
    forged = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": kept, "immutable": True, "data": {"run.json": "{}"}}
    path = f"{api.path('ConfigMap', name)}?fieldManager=user&force=true"

    def is_forged() -> bool:
        with contextlib.suppress(RefusedError):  # The operator has made it again already, or has not yet.
            api.delete("ConfigMap", name)
            api.request("PATCH", path, forged, "application/apply-patch+yaml")
            return True
        return False

    wait_for(is_forged, "it is forged before the operator has made it again")
    wait_for(lambda: _data(api, name) == config_map["data"], "it has its content again")


def _data(api: Api, name: str) -> Any:
    return next((item["data"] for item in api.items("ConfigMap") if item["metadata"]["name"] == name), None)


def test_replicas_follow_the_spec_and_ready_replicas_the_pods_while_the_next_revision_waits(api: Api) -> None:
    deployment = serves(api)
    told = ready_message(raise_gate(api))
    assert "is served: 1 of 1 replicas ready." in told
    assert "not served" not in told

    (pod,) = api.wait_children(deployment, "serve", "Pod")
    not_ready = {"type": "Ready", "status": "False", "lastTransitionTime": played.MOMENT}
    api.patch("Pod", pod["metadata"]["name"], {"status": {"conditions": [not_ready]}}, "status")
    # The number is the Deployment's, and what is said of it the Pods': the operator is told of them apart.
    api.wait(
        "ModelDeployment",
        "router",
        lambda found: found["status"].get("readyReplicas", 0) == 0 and "0 of 1 replicas ready" in ready_message(found),
    )

    api.patch("ModelDeployment", "router", {"spec": {"replicas": 2}})
    all_are_ready(api, deployment, 2)
    api.wait("ModelDeployment", "router", lambda found: found["status"].get("readyReplicas") == 2)
    api.patch("ModelDeployment", "router", {"spec": {"replicas": 0}})
    api.wait(
        "ModelDeployment",
        "router",
        lambda found: found["status"].get("replicas", 0) == 0 and "is scaled to zero" in ready_message(found),
    )
    assert api.get("Deployment", "router")["spec"]["replicas"] == 0


HOLDS: dict[str, Callable[[Api, str], object]] = {
    "its job runs again": lambda api, _: api.patch("FineTuneJob", "router", {"spec": {"runId": "2"}}),
    "its job is deleted": lambda api, _: api.delete("FineTuneJob", "router"),
    "another model": lambda api, _: api.patch(
        "ModelDeployment", "router", {"spec": {"model": {"fineTuneJobRef": {"name": "another"}}}}
    ),
    "the evaluation is deleted": lambda api, _: api.delete("Evaluation", "router"),
    "the evaluation runs again": lambda api, _: api.patch("Evaluation", "router", {"spec": {"runId": "2"}}),
    "the class is deleted": lambda api, name: api.delete("FineTuneClass", name),
}


@pytest.mark.parametrize("how", HOLDS)
def test_it_is_kept_up_whatever_its_references_are_doing(api: Api, how: str) -> None:
    name = f"cpu-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, CLASS)
    deployment = serves(api, className=name)
    HOLDS[how](api, name)
    held = api.wait("ModelDeployment", "router", lambda found: condition(found, "Ready")["status"] == "False")
    assert held["status"]["revision"] == RESULT.digest
    assert held["status"]["readyReplicas"] == 1
    assert "is served: 1 of 1 replicas ready" in ready_message(held)
    gone = {**api.get("Service", "router"), "kind": "Service"}
    api.delete("Service", "router")
    expect_made_again(api, gone)
    api.patch("ModelDeployment", "router", {"spec": {"replicas": 0}})
    wait_for(lambda: api.get("Deployment", "router")["spec"]["replicas"] == 0, "its replicas are applied")
    api.wait_children(deployment, "serve", "Pod", 0)


def test_scaled_to_zero_it_says_so_and_comes_back(api: Api) -> None:
    deployment = serves(api)
    scale(api, "ModelDeployment", 0)
    asleep = api.wait("ModelDeployment", "router", lambda found: "Scaled to zero" in ready_message(found))
    assert asleep["status"].get("readyReplicas", 0) == 0
    assert stalled(asleep) == ("", "")
    api.wait_children(deployment, "serve", "Pod", 0)
    scale(api, "ModelDeployment", 2)
    all_are_ready(api, deployment, 2)
    api.wait("ModelDeployment", "router", lambda found: found["status"].get("readyReplicas") == 2)
    found = api.request("GET", f"{api.path('ModelDeployment', 'router')}/scale")
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (2, 2)
    pods = api.items("Pod", found["status"]["selector"])
    assert {pod["metadata"]["uid"] for pod in pods} == {
        pod["metadata"]["uid"] for pod in api.children_of(deployment, "serve", "Pod")
    }


def test_an_autoscaler_finds_it(api: Api) -> None:
    """It reads the scale, and then misses only metrics, which nobody measures here."""
    serves(api)
    target = {"apiVersion": "finetune.dev/v1alpha1", "kind": "ModelDeployment", "name": "router"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}
    path = f"/apis/autoscaling/v2/namespaces/{api.namespace}/horizontalpodautoscalers"
    api.request("POST", path, {"metadata": {"name": "router"}, "spec": spec})

    def finds_it() -> bool:
        return condition(api.request("GET", f"{path}/router"), "AbleToScale").get("reason") == "SucceededGetScale"

    wait_for(finds_it, "the autoscaler has read the scale", seconds=60)


def test_no_more_than_the_class_allows(api: Api) -> None:
    name = f"cpu-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, "limits": {"replicas": 2}})
    serves(api, className=name)
    scale(api, "ModelDeployment", 5)
    limited = api.wait_reason("ModelDeployment", "router", "LimitExceeded")
    assert "spec.replicas is 5" in ready_message(limited)
    assert "raise limits.replicas" in condition(limited, "Stalled")["message"], "which does not stall"
    assert condition(limited, "Stalled")["status"] == "False"
    wait_for(lambda: api.get("Deployment", "router")["spec"]["replicas"] == 2, "as many as are allowed")


def test_a_class_that_changes_is_served_with_also_while_the_next_revision_waits(api: Api) -> None:
    name = f"cpu-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, "images": {"trainer": "example.com/typo:1"}})
    serves(api, className=name)
    raise_gate(api)
    api.patch("FineTuneClass", name, {"spec": {"images": {"trainer": "example.com/trainer:2"}}})
    wait_for(lambda: template(api)["containers"][0]["image"] == "example.com/trainer:2", "the image is corrected")


def test_when_nothing_changes_nothing_is_written_though_a_webhook_and_others_have_added_to_it(
    api: Api, operator: OperatorProcess
) -> None:
    """A mutating policy writes another image and adds a variable; a person restarts, labels and annotates."""
    policy = mutating_policy(api)
    deployment = serves(api)
    assert template(api)["containers"][0]["image"] == "mirror.example.com/trainer:1"
    edit(
        api,
        {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}},
        "kubectl-rollout",
    )
    for kind in ("Deployment", "Service"):
        api.patch(kind, "router", {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}}})

    def is_rolled_out() -> bool:
        becomes_available(api, deployment)
        found = api.get("Deployment", "router")
        told = {"observedGeneration": found["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1}
        return told.items() <= found["status"].items()

    wait_for(is_rolled_out, "the restart's Pod serves alone")
    api.wait_children(deployment, "serve", "Pod", 1)
    api.wait_reason("ModelDeployment", "router", "Available")

    def look_writes_nothing() -> bool:
        before, looks = quiet_versions(api, deployment), samples(operator)[LOOKS]
        touch = {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}}
        api.patch("Evaluation", "router", touch)  # Lets the operator look again.
        wait_for(lambda: samples(operator)[LOOKS] > looks, "it has looked")
        return quiet_versions(api, deployment) == before

    # What Kubernetes' controllers did last is told meanwhile.
    wait_for(lambda: all(look_writes_nothing() for _ in range(3)), "three looks in a row write nothing")
    found = api.get("Deployment", "router")
    assert found["metadata"]["labels"]["team"] == "a"
    assert "kubectl.kubernetes.io/restartedAt" in found["spec"]["template"]["metadata"]["annotations"]
    assert found["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "PROXY", "value": "a"}]
    api.request("DELETE", f"/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/{policy}")


def mutating_policy(api: Api) -> str:
    """What a platform's webhook does to each Deployment of the test's namespace."""
    name = f"mutate-{api.namespace}"
    group = "/apis/admissionregistration.k8s.io/v1"
    changed = (
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"
        "containers: [Object.spec.template.spec.containers{name: 'server', image: 'mirror.example.com/trainer:1', "
        "env: [Object.spec.template.spec.containers.env{name: 'PROXY', value: 'a'}]}]}}}}"
    )
    rules = [
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}
    ]
    constraints = {
        "resourceRules": rules,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": api.namespace}},
    }
    mutations = [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": changed}}]
    spec = {
        "matchConstraints": constraints,
        "mutations": mutations,
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
    }
    api.request("POST", f"{group}/mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
    binding = {"metadata": {"name": name}, "spec": {"policyName": name}}
    api.request("POST", f"{group}/mutatingadmissionpolicybindings", binding)
    labels = {"of": "a-probe"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{**SERVER, "image": "a"}]}}
    probe = {"metadata": {"name": "probe"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}

    def is_in_force() -> bool:
        made = api.request("POST", f"{api.path('Deployment')}?dryRun=All", probe)
        return bool(made["spec"]["template"]["spec"]["containers"][0]["image"] == "mirror.example.com/trainer:1")

    wait_for(is_in_force, "the policy is in force")
    return name


def test_a_model_that_is_not_there_is_named_by_the_init_container_at_its_first_end(api: Api) -> None:
    deployment = api.create("ModelDeployment", "router", {"className": "cpu", "model": {"uri": "s3://models/typo"}})
    (pod,) = api.wait_children(deployment, "serve", "Pod")
    said = Failure(reason=Reason.MODEL_NOT_FOUND, message="Nothing is at s3://models/typo. Correct spec.model.uri.")
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "message": to_termination_message(said),
        **dict.fromkeys(("startedAt", "finishedAt"), played.MOMENT),
    }
    _init(api, pod, {"running": {"startedAt": played.MOMENT}}, {"terminated": ended})
    named = api.wait_reason("ModelDeployment", "router", "ModelNotFound")
    assert stalled(named)[1].startswith("Nothing is at s3://models/typo. Correct spec.model.uri.")
    assert named["status"]["phase"] == "Blocked"
    played.ready(api, pod)
    api.wait_reason("ModelDeployment", "router", "Available")


def _init(api: Api, pod: Object, state: Object, last: Object) -> None:
    """The init container has ended, and is started again at once, as the kubelet does the first time."""
    (fetch,) = pod["spec"]["initContainers"]
    status = {
        "name": fetch["name"],
        "image": fetch["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 1,
        "started": False,
        "state": state,
        "lastState": last,
    }
    body = {"phase": "Pending", "initContainerStatuses": [status]}
    api.patch("Pod", pod["metadata"]["name"], {"status": body}, "status")
