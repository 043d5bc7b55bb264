"""A gateway on the real API server: it comes beside what serves, the Service turns to it, and it goes again."""

from __future__ import annotations

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, wait_for
from tests.integration.operator.serving import all_are_ready, expect_made_again, quiet_versions, ready_message

pytestmark = pytest.mark.usefixtures("operator")

MODEL = {"className": "cpu", "model": {"uri": "s3://models/one"}}


def service_leads_to(api: Api, role: str) -> None:
    wait_for(
        lambda: api.get("Service", "router")["spec"]["selector"]["finetune.dev/role"] == role,
        f"the Service leads to the Pods of the role {role}",
    )


def serves(api: Api) -> Object:
    deployment = api.create("ModelDeployment", "router", MODEL)
    all_are_ready(api, deployment)
    api.wait_reason("ModelDeployment", "router", "Available")
    return deployment


def gateway_is_ready(api: Api, deployment: Object, number: int = 2) -> None:
    for pod in api.wait_children(deployment, "gateway", "Pod", number):
        played.ready(api, pod)


def test_a_gateway_comes_beside_what_serves_and_goes_again(api: Api) -> None:
    deployment = serves(api)
    server = api.get("Deployment", "router")["metadata"]["generation"]
    api.patch("ModelDeployment", "router", {"spec": {"gateway": {}}})
    api.wait_children(deployment, "gateway", "Pod", 2)
    waiting = api.wait("ModelDeployment", "router", lambda found: "of the gateway" in ready_message(found))
    assert waiting["status"]["phase"] == "RollingOut"
    assert api.get("Service", "router")["spec"]["selector"]["finetune.dev/role"] == "serve", "it answers nothing yet"
    gateway_is_ready(api, deployment)
    service_leads_to(api, "gateway")
    available = api.wait_reason("ModelDeployment", "router", "Available")
    assert available["status"]["selector"].endswith("role=serve"), "an autoscaler counts what serves"
    assert available["status"]["replicas"] == 1
    assert api.get("Deployment", "router")["metadata"]["generation"] == server, "what serves was left alone"

    api.patch("ModelDeployment", "router", {"spec": {"gateway": None}})
    service_leads_to(api, "serve")
    api.wait_children(deployment, "gateway", "Deployment", 0)
    api.wait_children(deployment, "serve", "PodDisruptionBudget", 0)
    (service,) = api.wait_children(deployment, "serve", "Service", 1)
    assert service["metadata"]["name"] == "router"
    api.wait_reason("ModelDeployment", "router", "Available")


def test_without_a_ready_pod_of_it_the_condition_says_that_nothing_is_reachable(api: Api) -> None:
    deployment = api.create("ModelDeployment", "router", {**MODEL, "gateway": {"replicas": 1}})
    all_are_ready(api, deployment)
    gateway_is_ready(api, deployment, 1)
    api.wait_reason("ModelDeployment", "router", "Available")
    service_leads_to(api, "gateway")
    (pod,) = api.wait_children(deployment, "gateway", "Pod", 1)
    api.delete("Pod", pod["metadata"]["name"])
    down = api.wait_reason("ModelDeployment", "router", "GatewayUnavailable")
    assert "nothing is reachable" in ready_message(down)
    assert "is served" not in ready_message(down)
    assert down["status"]["phase"] == "RollingOut"


def test_what_is_deleted_of_it_comes_again_and_else_nothing_is_written(api: Api) -> None:
    deployment = api.create("ModelDeployment", "router", {**MODEL, "gateway": {"replicas": 1}})
    all_are_ready(api, deployment)
    gateway_is_ready(api, deployment, 1)
    api.wait_reason("ModelDeployment", "router", "Available")
    service_leads_to(api, "gateway")
    before = quiet_versions(api, deployment)
    services = api.children_of(deployment, "serve", "Service")
    (servers,) = [item for item in services if item["metadata"]["name"] != "router"]
    api.delete("Service", servers["metadata"]["name"])
    again = expect_made_again(api, {**servers, "kind": "Service"})
    assert again["spec"]["clusterIP"] == "None"
    after = quiet_versions(api, deployment)
    status = "router" + deployment["metadata"]["uid"]
    assert {name for name in before.keys() & after.keys() if before[name] != after[name]} <= {status}
