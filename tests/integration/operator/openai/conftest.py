"""The API of one namespace for the tests of a worker, and OpenAI's client for it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from e2e.cluster.components.control_plane import ControlPlane
from e2e.s3 import REGION, local_s3
from tests.integration.operator.api import Api, namespace
from tests.integration.operator.openai.service import BUCKET, Service, account
from tests.integration.operator.process import OperatorProcess

MODELS = [{"name": "qwen3-0.6b", "aliases": ["gpt-4o-mini-2024-07-18"], "uri": "s3://models/base"}]


@pytest.fixture(scope="session")
def service(
    cluster: ControlPlane, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with local_s3() as s3, namespace(cluster) as api:
        s3.create_bucket(BUCKET)
        storage = {
            "bucket": BUCKET,
            "credentialsSecretName": "s3",
            "endpoint": s3.endpoint,
            "region": REGION,
            "pathStyle": True,
        }
        api.create("FineTuneClass", api.namespace, {"storage": storage, "openai": {"models": MODELS}})
        found = Service(cluster, api, api.namespace, s3, tmp_path_factory.mktemp("openai"))
        found.grant()
        account(api, "client", ["get", "list", "create", "update", "delete"])
        account(api, "reader", ["get", "list"])
        found.start()
        yield found
        found.kill()
        assert "Traceback" not in found.log.read_text()


@pytest.fixture(scope="session")
def client(service: Service) -> openai.OpenAI:
    return service.client(service.token("client"))


@pytest.fixture
def elsewhere(cluster: ControlPlane) -> Iterator[Api]:
    """Another namespace."""
    with namespace(cluster) as other:
        yield other
