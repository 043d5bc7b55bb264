"""A kind that is registered is watched, reconciled, and woken by what it owns and what it refers to: nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.ports import free_ports
from finetune_api.base import API_VERSION, GROUP, VERSION
from finetune_api.conditions import Reason
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.conditions import progressing, ready
from finetune_operator.core.kind_definition import Kind, OwnedResource
from finetune_operator.core.managed_fields import is_applied, with_digest
from finetune_operator.core.ownership import Owner, child_name, metadata, owner_of
from finetune_operator.core.plan import Plan, planned
from finetune_operator.core.references import ObjectKey
from finetune_operator.environment import Environment
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import CONFIG_MAPS, Object, Resource
from finetune_operator.runtime.manager import run
from finetune_operator.settings import Settings
from tests.integration.operator.api import Api, RefusedError, wait_for

GREETINGS = Resource(API_VERSION, "Greeting", "greetings")
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROLE = "greeting"


@dataclass(frozen=True)
class ObservedGreeting:
    owner: Owner
    generation: int
    status: KindStatus
    text: str | None
    found: Object | None


async def observe(reader: Reader, parent: Object) -> ObservedGreeting:
    """A greeting says what it is given, or what the greeting says that it refers to."""
    owner, spec = owner_of(parent), parent["spec"]
    if "like" in spec:
        other = await reader.get(GREETINGS, owner.namespace, spec["like"])
        spec = {} if other is None else other["spec"]
    return ObservedGreeting(
        owner=owner,
        generation=parent["metadata"]["generation"],
        status=KindStatus.read(parent.get("status")),
        text=spec.get("text"),
        found=await reader.get(CONFIG_MAPS, owner.namespace, child_name(owner, ROLE)),
    )


def plan(observed: ObservedGreeting, now: datetime) -> Plan[KindStatus]:
    """One ConfigMap with the text, kept as it was applied."""
    if observed.text is None:
        return planned(observed, observed.status, None, progressing(Reason.WAITING_FOR_MODEL), now)
    kind = {"apiVersion": CONFIG_MAPS.api_version, "kind": CONFIG_MAPS.kind}
    meta = metadata(observed.owner, child_name(observed.owner, ROLE), ROLE)
    wanted = with_digest({**kind, "metadata": meta, "data": {"text": observed.text}})
    apply = () if is_applied(wanted, observed.found) else (wanted,)
    return planned(observed, observed.status, None, ready(Reason.AVAILABLE, "It is said."), now, apply=apply)


def references(body: Mapping[str, Any]) -> frozenset[ObjectKey]:
    like = body["spec"].get("like")
    return frozenset({ObjectKey("Greeting", body["metadata"]["namespace"], like)} if like else ())


def greeting(environment: Environment) -> Kind:
    return Kind(GREETINGS, KindStatus, observe, plan, owns=(OwnedResource(CONFIG_MAPS),), references=references)


@pytest.fixture
def served(api: Api) -> Iterator[None]:
    """The API server knows the kind."""
    names = {"kind": GREETINGS.kind, "plural": GREETINGS.plural}
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
        "subresources": {"status": {}},
    }
    name = f"{GREETINGS.plural}.{GROUP}"
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }
    api.request("POST", CRDS, body)

    def is_served() -> bool:
        try:
            api.request("GET", GREETINGS.path(api.namespace))
        except (RefusedError, ValueError):  # A path that is not served is answered in plain text.
            return False
        return True

    wait_for(is_served, "greetings are served")
    yield
    api.request("DELETE", f"{CRDS}/{name}")


def make(api: Api, name: str, **spec: str) -> str:
    """Create a greeting; returns the path of its ConfigMap."""
    body = {"apiVersion": API_VERSION, "kind": GREETINGS.kind, "metadata": {"name": name}, "spec": spec}
    owner = owner_of(api.request("POST", GREETINGS.path(api.namespace), body))
    return CONFIG_MAPS.path(api.namespace, child_name(owner, ROLE))


def says(api: Api, path: str, text: str) -> bool:
    try:
        return bool(api.request("GET", path)["data"] == {"text": text})
    except RefusedError:
        return False


async def test_a_registered_kind_is_reconciled_and_woken_by_its_children_and_by_what_it_refers_to(
    cluster: ControlPlane, api: Api, served: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an operator that knows nothing but greetings, and looks at nothing again by itself within the test."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    health, metrics = free_ports(2)
    settings = Settings(cluster.kubeconfig, resync_seconds=3600, health_port=health, metrics_port=metrics)
    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, stop, kinds=(greeting,)))
    await asyncio.to_thread(_follow, api)
    stop.set()
    await running


def _follow(api: Api) -> None:
    copy = make(api, "copy", like="hello")
    original = make(api, "hello", text="Hello")
    wait_for(lambda: says(api, original, "Hello") and says(api, copy, "Hello"), "both are said")
    wait_for(lambda: "status" in api.request("GET", GREETINGS.path(api.namespace, "hello")), "the status is written")
    status = api.request("GET", GREETINGS.path(api.namespace, "hello"))["status"]
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [("Ready", "True"), ("Stalled", "False")]
    api.request("DELETE", original)
    wait_for(lambda: says(api, original, "Hello"), "a deleted child is made again")
    api.request("PATCH", copy, {"data": {"text": "Bye"}}, "application/merge-patch+json")
    wait_for(lambda: says(api, copy, "Hello"), "a changed child is put right")
    changed = {"spec": {"text": "Good morning"}}
    path = GREETINGS.path(api.namespace, "hello")
    api.request("PATCH", path, changed, "application/merge-patch+json")
    wait_for(lambda: says(api, original, "Good morning"), "a changed spec is followed")
    wait_for(lambda: says(api, copy, "Good morning"), "what refers to it follows")
