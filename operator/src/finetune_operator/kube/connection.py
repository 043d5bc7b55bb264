"""The connection to the API server: a kubeconfig's, or that of the service account of the Pod it runs in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.kube.client import REQUEST_TIMEOUT_SECONDS, Answered, Kube
from finetune_operator.kube.resources import FIELD_MANAGER, RESOURCES, Resource


@asynccontextmanager
async def connected(
    kubeconfig: Path | None,
    request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    answered: Answered | None = None,
    resources: Iterable[Resource] = RESOURCES,
    field_manager: str = FIELD_MANAGER,
) -> AsyncIterator[Kube]:
    """Requests can be made while this is entered. `answered` is told of each; `resources` are those to be written,
    by the name `field_manager`."""
    if kubeconfig is not None:
        # Kopf's own client reads the same variable.
        os.environ["KUBECONFIG"] = str(kubeconfig)
        await config.load_kube_config(config_file=str(kubeconfig))
    else:
        config.load_incluster_config()
    configuration = Configuration.get_default_copy()
    # aiohttp would look for a ~/.netrc in a thread, at every request.
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as api:
        yield Kube(api, request_timeout_seconds, answered, resources, field_manager)
