"""A webhook of somebody else's that does not answer, so that the API server refuses what it would have to judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from e2e.cluster.machine.ports import free_ports
from tests.integration.operator.api import Api

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@contextmanager
def unanswered_webhook(api: Api, operations: list[str], resources: list[str]) -> Iterator[str]:
    """Judges these operations in the namespace; yields its configuration's path."""
    name, (port,) = f"silent-{api.namespace}", free_ports(1)
    webhook = {
        "name": "sidecars.mesh.example.com",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": resources}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": api.namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "timeoutSeconds": 1,
    }
    api.request("POST", WEBHOOKS, {"metadata": {"name": name}, "webhooks": [webhook]})
    try:
        yield f"{WEBHOOKS}/{name}"
    finally:
        if any(one["metadata"]["name"] == name for one in api.request("GET", WEBHOOKS)["items"]):
            api.request("DELETE", f"{WEBHOOKS}/{name}")
