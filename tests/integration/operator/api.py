"""The API server as the tests use it: the administrator's requests, and waiting for what comes true."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import urllib3

from e2e.cluster.components.control_plane import ControlPlane

Object = dict[str, Any]
Answer = TypeVar("Answer")

OURS = "/apis/finetune.dev/v1alpha1"
PLURALS = {
    "FineTuneClass": f"{OURS}/finetuneclasses",
    "FineTuneJob": f"{OURS}/namespaces/{{}}/finetunejobs",
    "Evaluation": f"{OURS}/namespaces/{{}}/evaluations",
    "ModelDeployment": f"{OURS}/namespaces/{{}}/modeldeployments",
    "FineTuneSweep": f"{OURS}/namespaces/{{}}/finetunesweeps",
    "Dataset": f"{OURS}/namespaces/{{}}/datasets",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Event": "/api/v1/namespaces/{}/events",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
}
CHILDREN = ("Job", "Pod", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget")
WAIT_SECONDS = 30.0
COLLECTED_SECONDS = 60.0
"""The garbage collector looks for new CRDs every 30 s; in the first half minute of a control plane it takes so long."""
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 0.5
"""Between two requests for what is waited for: asking ten times a second kept three API servers from their work."""
PACE_SECONDS = float(os.environ.get("TEST_PACE", "0"))
"""How long a test pauses, at most, before each request and each wait: see docs/how-to/develop.md."""


class _Waiting(threading.local):
    """Whether this thread asks what it waits for, which is not paused."""

    is_now = False


_waiting = _Waiting()


class RefusedError(Exception):
    """The API server's refusal, in its own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Api:
    """Requests of the administrator, or of another user, in one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str, user: str | None = None) -> None:
        pki = plane.home / "pki"
        certificate, key = pki / "kubeconfig.crt", pki / "kubeconfig.key"
        if user is not None:
            issued = plane.authority.issue(f"user-{user}", user)
            certificate, key = issued.certificate, issued.key
        self._pool = urllib3.PoolManager(ca_certs=str(pki / "ca.crt"), cert_file=str(certificate), key_file=str(key))
        self._server = plane.server
        self.namespace = namespace

    def request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """One request. Raises RefusedError."""
        _pause()
        answer = self._pool.request(
            method,
            self._server + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
            timeout=30,
        )
        content: Object = json.loads(answer.data)
        if answer.status >= 300:
            raise RefusedError(answer.status, content.get("message", ""))
        return content

    def path(self, kind: str, name: str = "") -> str:
        return PLURALS[kind].format(self.namespace) + (f"/{name}" if name else "")

    def create(self, kind: str, name: str, spec: Object, *, query: str = "", **metadata: Any) -> Object:
        """Make one of our objects, or of those with a spec. Unknown fields are refused, as kubectl has it."""
        group = "v1" if kind in ("ResourceQuota", "Service") else "finetune.dev/v1alpha1"
        body = {"apiVersion": group, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
        return self.request("POST", f"{self.path(kind)}?fieldValidation=Strict{query}", body)

    def patch(self, kind: str, name: str, body: Object, subresource: str = "", query: str = "") -> Object:
        """JSON merge patch."""
        path = self.path(kind, name) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", f"{path}?{query}", body, "application/merge-patch+json")

    def put_status(self, kind: str, name: str, status: Object) -> Object:
        """Write a status as the operator does, with its manager, of no field another; returns what is stored."""
        body = {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "status": status}
        path = f"{self.path(kind, name)}/status?fieldManager=finetune-operator&force=true"
        return self.request("PATCH", path, body, "application/apply-patch+yaml")

    def delete(self, kind: str, name: str) -> None:
        self.request("DELETE", self.path(kind, name), {"propagationPolicy": "Background"})

    def get(self, kind: str, name: str) -> Object:
        return self.request("GET", self.path(kind, name))

    def exists(self, kind: str, name: str) -> bool:
        return any(item["metadata"]["name"] == name for item in self.items(kind))

    def items(self, kind: str, selector: str = "") -> list[Object]:
        query = f"?labelSelector={selector}" if selector else ""
        found: list[Object] = self.request("GET", self.path(kind) + query)["items"]
        return found

    def children(self, owner_uid: str) -> dict[str, list[Object]]:
        """Everything that carries the label of an owner, by kind."""
        return {kind: self.items(kind, f"finetune.dev/owner-uid={owner_uid}") for kind in CHILDREN}

    def children_of(self, owner: Object, role: str, kind: str) -> list[Object]:
        """The children of one kind in one role."""
        selector = f"finetune.dev/owner-uid={owner['metadata']['uid']},finetune.dev/role={role}"
        return self.items(kind, selector)

    def wait(self, kind: str, name: str, until: Callable[[Object], bool], seconds: float = WAIT_SECONDS) -> Object:
        """The object, once it is as wanted. Raises AssertionError with what it is instead."""
        for found in _polls(lambda: self.get(kind, name), seconds):
            if until(found):
                return found
        raise AssertionError(f"after {seconds} s {kind} {name} is {json.dumps(found.get('status', {}), indent=1)}")

    def wait_reason(self, kind: str, name: str, reason: str, seconds: float = WAIT_SECONDS) -> Object:
        """The object, once the reason of its Ready condition is this one."""
        return self.wait(kind, name, lambda found: condition(found, "Ready").get("reason") == reason, seconds)

    def wait_children(self, owner: Object, role: str, kind: str, number: int = 1) -> list[Object]:
        """The children of one kind in one role, once there are so many."""
        for found in _polls(lambda: self.children_of(owner, role, kind), WAIT_SECONDS):
            if len(found) == number:
                return found
        raise AssertionError(f"there are {len(found)} {kind}s of role {role} instead of {number}")


@contextlib.contextmanager
def namespace(plane: ControlPlane) -> Iterator[Api]:
    """A new namespace in which Pods can be made; deleted at the end (or by the test), which is not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    api = Api(plane, name)
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    wait_for(lambda: api.exists("ServiceAccount", "default"), "a service account for Pods")
    yield api
    with contextlib.suppress(RefusedError):
        api.request("DELETE", f"/api/v1/namespaces/{name}")


def wait_for(
    true: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS, longest_pause: float = LONGEST_PAUSE_SECONDS
) -> None:
    """Until something is true. Raises AssertionError."""
    for now in _polls(true, seconds, longest_pause):
        if now:
            return
    raise AssertionError(f"not within {seconds} s: {what}")


def condition(item: Object, kind: str) -> Object:
    """One condition of an object; empty where there is none."""
    return next((one for one in item.get("status", {}).get("conditions", []) if one["type"] == kind), {})


def stalled(item: Object) -> tuple[str, str]:
    """Reason and message of the diagnosis that stands; two empty texts while there is none."""
    found = condition(item, "Stalled")
    return (found["reason"], found["message"]) if found.get("status") == "True" else ("", "")


def _polls(ask: Callable[[], Answer], seconds: float, longest_pause: float = LONGEST_PAUSE_SECONDS) -> Iterator[Answer]:
    """Answers until the time is over, at least two: after a tenth of the time so far, and 100 ms at least."""
    _pause()
    start = time.monotonic()
    yield _unpaused(ask)
    while (waited := time.monotonic() - start) < seconds:
        time.sleep(min(max(SHORTEST_PAUSE_SECONDS, waited / 10), longest_pause))
        yield _unpaused(ask)


def _unpaused(ask: Callable[[], Answer]) -> Answer:
    before, _waiting.is_now = _waiting.is_now, True
    try:
        return ask()
    finally:
        _waiting.is_now = before


def _pause() -> None:
    if PACE_SECONDS and not _waiting.is_now:
        time.sleep(random.uniform(PACE_SECONDS / 2, PACE_SECONDS))
