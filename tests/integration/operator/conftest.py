"""One operator process for the session, and a namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.components.control_plane import ControlPlane, control_plane
from tests.integration.crds import install_crds
from tests.integration.operator.api import Api, namespace
from tests.integration.operator.lives import Stage, stage
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
    status, log = process.stop(), process.log.read_text()
    assert status == 0, log
    assert "Traceback" not in log, f"a bug came up in one of the tests:\n{log}"


@pytest.fixture(scope="session")
def quiet_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A control plane on which no operator runs but those that a test starts, each for a namespace of its own."""
    with control_plane() as plane:
        install_crds(plane)
        with stage(plane, tmp_path_factory.mktemp("stage")) as ready:
            yield ready


@pytest.fixture
def api(cluster: ControlPlane) -> Iterator[Api]:
    """The API server, and a namespace of the test's own."""
    with namespace(cluster) as api:
        yield api
