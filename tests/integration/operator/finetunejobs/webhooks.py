"""A webhook of somebody else's: one that does not answer, so that the API server refuses what it would have to judge,
and one that denies.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from e2e.cluster.components.certificates import Authority
from e2e.cluster.machine.ports import free_ports
from tests.integration.operator.api import Api, Object

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@contextmanager
def unanswered_webhook(api: Api, operations: list[str], resources: list[str]) -> Iterator[str]:
    """Judges these operations in the namespace; yields its configuration's path."""
    (port,) = free_ports(1)
    with _webhook(api, operations, resources, {"url": f"https://127.0.0.1:{port}/"}) as path:
        yield path


@contextmanager
def denying_webhook(
    api: Api, operations: list[str], resources: list[str], *, code: int, authority: Authority
) -> Iterator[str]:
    """Denies these operations in the namespace, with a code of its choice; yields its configuration's path."""
    issued = authority.issue("webhook", "webhook", hosts=["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(issued.certificate, issued.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Denial, code))
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ca = base64.b64encode(authority.certificate.read_bytes()).decode()
    client = {"url": f"https://127.0.0.1:{server.server_address[1]}/", "caBundle": ca}
    try:
        with _webhook(api, operations, resources, client) as path:
            yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Denial(BaseHTTPRequestHandler):
    """Answers every AdmissionReview alike."""

    def __init__(self, code: int, *connection: Any) -> None:
        self._code = code
        super().__init__(*connection)

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = {"code": self._code, "message": "this is protected"}
        answer = {"uid": review["request"]["uid"], "allowed": False, "status": status}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _webhook(api: Api, operations: list[str], resources: list[str], client: Object) -> Iterator[str]:
    name = f"guard-{api.namespace}"
    webhook = {
        "name": "sidecars.mesh.example.com",
        "clientConfig": client,
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
