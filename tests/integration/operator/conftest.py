"""One operator process for the session, and a namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.api import Api, RefusedError, wait_for
from tests.integration.operator.process import OperatorProcess

CLASS = {
    "storage": {"bucket": "models", "credentialsSecretName": "s3-credentials"},
    "sources": {"models": ["s3://models/*"], "datasets": ["s3://data/*"]},
}


@pytest.fixture(scope="session")
def operator(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The running operator, and the class `cpu` that it allows jobs to use."""
    process = OperatorProcess(cluster, tmp_path_factory.mktemp("operator"))
    process.start()
    api = Api(cluster, "")
    api.create("FineTuneClass", "cpu", CLASS)
    api.wait_reason("FineTuneClass", "cpu", "Valid")
    yield process
    assert process.stop() == 0, process.log.read_text()


@pytest.fixture
def api(cluster: ControlPlane) -> Iterator[Api]:
    """The API server, and a namespace of the test's own."""
    name = f"test-{secrets.token_hex(4)}"
    api = Api(cluster, name)
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    wait_for(lambda: _exists(api, "ServiceAccount", "default"), "a service account for Pods")
    yield api
    api.request("DELETE", f"/api/v1/namespaces/{name}")


def _exists(api: Api, kind: str, name: str) -> bool:
    try:
        api.get(kind, name)
    except RefusedError:
        return False
    return True
