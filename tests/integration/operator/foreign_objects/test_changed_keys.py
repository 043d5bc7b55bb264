"""Lists that the API server merges by key: where the key of ours was changed, theirs goes and ours comes back."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.integration.operator.api import Api, Object, wait_for
from tests.integration.operator.serving import raise_gate, serves

pytestmark = pytest.mark.usefixtures("operator")


def moves_the_port(spec: Object) -> None:
    spec["ports"][0]["port"] = 8080


def adds_a_port(spec: Object) -> None:
    spec["ports"].append({"name": "metrics", "port": 9090})


def leads_elsewhere(spec: Object) -> None:
    spec["type"], spec["externalName"] = "ExternalName", "elsewhere.example.com"


def pins_its_clients(spec: Object) -> None:
    spec["sessionAffinity"] = "ClientIP"


def moves_the_container_port(spec: Object) -> None:
    server(spec)["ports"][0]["containerPort"] = 8001


def renames_the_container(spec: Object) -> None:
    server(spec)["name"] = "renamed"


def renames_the_init_container(spec: Object) -> None:
    spec["template"]["spec"]["initContainers"][0]["name"] = "renamed"


def moves_a_mount(spec: Object) -> None:
    server(spec)["volumeMounts"][0]["mountPath"] = "/elsewhere"


def changes_what_a_volume_is(spec: Object) -> None:
    volume = next(one for one in spec["template"]["spec"]["volumes"] if one["name"] == "tmp")
    del volume["emptyDir"]
    volume["configMap"] = {"name": "theirs"}


def asks_another_probe(spec: Object) -> None:
    probe = server(spec)["readinessProbe"]
    del probe["httpGet"]
    probe["tcpSocket"] = {"port": "http"}


def adds_a_sidecar(spec: Object) -> None:
    spec["template"]["spec"]["containers"].append({"name": "sidecar", "image": "example.com/sidecar:1"})


def server(spec: Object) -> Object:
    found: Object = spec["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Service", moves_the_port),
        ("Service", adds_a_port),
        ("Service", leads_elsewhere),
        ("Service", pins_its_clients),
        ("Deployment", moves_the_container_port),
        ("Deployment", renames_the_container),
        ("Deployment", renames_the_init_container),
        ("Deployment", moves_a_mount),
        ("Deployment", changes_what_a_volume_is),
        ("Deployment", asks_another_probe),
        ("Deployment", adds_a_sidecar),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_we_serve_with_is_ours_whole(api: Api, kind: str, change: Callable[[Object], None]) -> None:
    served(api)
    before = spec_of(api, kind)
    replace_spec(api, kind, change)
    wait_for(lambda: spec_of(api, kind) == before, f"the {kind} is as it was")
    wait_for(lambda: len(corrections(api)) == 1, "it is told")
    assert corrections(api)[0].startswith(f"Reverted: {kind} spec.")
    assert "'kubectl-patch' set" in corrections(api)[0]


def test_a_moved_port_comes_back_while_the_next_revision_waits_for_its_gate(api: Api) -> None:
    serves(api)
    before = spec_of(api, "Service")
    raise_gate(api)
    replace_spec(api, "Service", moves_the_port)
    wait_for(lambda: spec_of(api, "Service") == before, "the Service is as it was")
    api.wait_reason("ModelDeployment", "router", "GateFailed")


def served(api: Api) -> None:
    """A Deployment and a Service are there; whether Pods answer does not matter."""
    api.create("ModelDeployment", "router", {"className": "cpu", "model": {"uri": "s3://models/tuned"}})
    api.wait("ModelDeployment", "router", lambda found: bool(found.get("status", {}).get("applied")))


def spec_of(api: Api, kind: str) -> Object:
    """Without the addresses: one that was given up comes back as another."""
    spec = api.get(kind, "router")["spec"]
    return {name: value for name, value in spec.items() if name not in ("clusterIP", "clusterIPs")}


def replace_spec(api: Api, kind: str, change: Callable[[Object], None]) -> None:
    """As `kubectl patch` does; a list is replaced as a whole."""
    before = api.get(kind, "router")["spec"]
    after = copy.deepcopy(before)
    change(after)
    if after.get("type") == "ExternalName":
        after |= {"clusterIP": None, "clusterIPs": None}
    api.patch(kind, "router", {"spec": after}, query="fieldManager=kubectl-patch")


def corrections(api: Api) -> list[str]:
    return [item["message"] for item in api.items("Event") if item["reason"] == "DriftCorrected"]
