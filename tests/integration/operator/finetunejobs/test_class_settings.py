"""Pods with everything that a FineTuneClass may set: the API server, its Job controller and the scheduler take them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.operator.api import Api, Object
from tests.integration.operator.jobs import JOB, preflight_succeeds

pytestmark = pytest.mark.usefixtures("operator")

EXAMPLE = Path("examples/capabilities/class-platform.yaml")


@pytest.fixture
def platform_class(api: Api) -> Iterator[str]:
    """The example's class, under a name of the test's own."""
    name = f"platform-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, yaml.safe_load(EXAMPLE.read_text())["spec"])
    yield name
    api.delete("FineTuneClass", name)


def only_pod(api: Api, owner: Object, role: str, number: int = 1) -> Object:
    """One of the Pods that the Job controller has made of the role's Job."""
    return api.wait_children(owner, role, "Pod", number)[0]


def test_a_gang_is_scheduled_with_all_settings_of_its_class(api: Api, platform_class: str) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": platform_class})
    preflight = only_pod(api, job, "preflight")["spec"]
    assert preflight["imagePullSecrets"] == [{"name": "registry"}]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"} in preflight["containers"][0]["env"]
    preflight_succeeds(api, job)
    pod = only_pod(api, job, "train", 2)
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["rdma/hca"]) == ("8", "8")
    (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    selector = term["labelSelector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items(), "or the gang would attract nothing"


def test_a_deployment_has_accelerators_of_its_own(api: Api, platform_class: str) -> None:
    spec = {"className": platform_class, "model": {"uri": "s3://models/base"}}
    deployment = api.create("ModelDeployment", "router", spec)
    pod = only_pod(api, deployment, "serve")["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/mig-3g.40gb"] == "1"
    assert pod["nodeSelector"] == {"pool": "inference"}
    with_token = [
        container["name"]
        for container in (*pod["initContainers"], *pod["containers"])
        if any(mount["name"] == "hub-token" for mount in container["volumeMounts"])
    ]
    assert with_token == ["fetch"]
