"""The connection to the API server, from a kubeconfig or, in a Pod, from its service account."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.kube.cache import Cache
from finetune_operator.kube.cached_client import CachedKube
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import FIELD_MANAGER, Resource
from finetune_operator.kube.transport import ResponseObserver


@asynccontextmanager
async def connected(kubeconfig: Path | None, field_manager: str = FIELD_MANAGER) -> AsyncIterator[Kube]:
    """A client whose connections are open while this context is entered; it writes as `field_manager`."""
    async with ApiClient(await _configuration(kubeconfig)) as api:
        yield Kube(api, field_manager=field_manager)


@asynccontextmanager
async def connected_with_cache(
    kubeconfig: Path | None,
    cache: Cache,
    request_timeout_seconds: float,
    on_response: ResponseObserver,
    resources: Iterable[Resource],
) -> AsyncIterator[CachedKube]:
    """The same with a cache. `on_response` is called after each request; `resources` are those it may write."""
    async with ApiClient(await _configuration(kubeconfig)) as api:
        yield CachedKube(api, cache, request_timeout_seconds, on_response, resources)


async def _configuration(kubeconfig: Path | None) -> Configuration:
    if kubeconfig is not None:
        # Kopf's own client reads the same variable.
        os.environ["KUBECONFIG"] = str(kubeconfig)
        await config.load_kube_config(config_file=str(kubeconfig))
    else:
        config.load_incluster_config()
    configuration: Configuration = Configuration.get_default_copy()
    # Otherwise aiohttp looks for ~/.netrc, in a thread, on every request.
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration
