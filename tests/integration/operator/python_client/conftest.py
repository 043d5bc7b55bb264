"""Both clients, in the namespace of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from finetune_client import AsyncFineTuneClient, FineTuneClient
from tests.integration.operator.api import Api
from tests.integration.operator.api_proxy import ApiProxy, Lane
from tests.integration.operator.python_client.driven import Driven

Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, api: Api) -> Iterator[Connect]:
    """Makes a client of the namespace, for a kubeconfig: synchronous, or asynchronous and driven alike."""
    with asyncio.Runner() as runner:
        made: list[Any] = []

        def client(kubeconfig: Path, **options: Any) -> Any:
            if request.param == "sync":
                made.append(FineTuneClient(api.namespace, kubeconfig=kubeconfig, **options))
            else:
                made.append(Driven(AsyncFineTuneClient(api.namespace, kubeconfig=kubeconfig, **options), runner))
            return made[-1]

        yield client
        for one in made:
            one.close()


@pytest.fixture
def client(connect: Connect, cluster: ControlPlane) -> Any:
    """The administrator's client."""
    return connect(cluster.kubeconfig)


@pytest.fixture
def lane(cluster: ControlPlane, api: Api, tmp_path: Path) -> Iterator[Lane]:
    """A way to the API server on which any request can be spoilt."""
    with ApiProxy(cluster, tmp_path).running() as proxy:
        yield proxy.lane(api.namespace)
