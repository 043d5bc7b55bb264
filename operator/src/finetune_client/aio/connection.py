"""The connection to the API server, through kubernetes.aio. The one of `sync` has the same methods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from finetune_client.connecting import IN_CLUSTER_NAMESPACE, REQUEST_SECONDS, Source, active_namespace
from finetune_client.errors import UNAUTHORIZED, NoConnectionError, answer_of, error_of, no_answer
from finetune_client.watch_events import SILENCE_SECONDS
from finetune_view.fields import Object

Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Login:
    """An ApiClient, with the credentials that it was opened with, and how many responses are read through it."""

    api: Any
    readers: int = 0
    is_replaced: bool = False


class Connection:
    """One user's requests to one API server. Opened by the first request."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._login: _Login | None = None
        self._opening = asyncio.Lock()

    async def namespace(self) -> str:
        """That of the kubeconfig's context or of the Pod."""
        from kubernetes.aio import config

        if self._source.in_cluster:
            return IN_CLUSTER_NAMESPACE.read_text().strip() if IN_CLUSTER_NAMESPACE.exists() else "default"
        return active_namespace(self._source, config.list_kube_config_contexts)

    async def _opened(self) -> _Login:
        from kubernetes.aio import client, config

        async with self._opening:
            if self._login is None:
                configuration = client.Configuration()
                try:
                    if self._source.in_cluster:
                        config.load_incluster_config(client_configuration=configuration)
                    else:
                        await config.load_kube_config(
                            self._source.file, self._source.context, configuration, persist_config=False
                        )
                except config.ConfigException as error:
                    raise NoConnectionError(self._source.problem(str(error))) from None
                # Otherwise aiohttp looks for ~/.netrc on every request.
                configuration.client_session_kwargs = {"trust_env": False}
                self._login = _Login(client.ApiClient(configuration))
            return self._login

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request and its answer. Raises ApiError."""
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            async with self._response(method, path, query or {}, body, content_type, timeout) as response:
                status, data = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise no_answer(f"{method} {path}", self._server, error) from error
        if not 200 <= status <= 299:
            raise error_of(status, data, f"{method} {path}")
        return answer_of(data, f"{method} {path}", self._server)

    async def lines(
        self, path: str, query: Mapping[str, str], silence_seconds: float = SILENCE_SECONDS
    ) -> AsyncGenerator[bytes]:
        """The lines of a watch or a log, until either side ends it. Raises ApiError."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence_seconds)
        try:
            async with self._response("GET", path, query, None, "application/json", timeout) as response:
                if response.status != 200:
                    raise error_of(response.status, await response.read(), f"GET {path}")
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                if rest:
                    yield rest
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise no_answer(f"GET {path}", self._server, error) from error

    @asynccontextmanager
    async def _response(self, *request: Any) -> AsyncGenerator[Any]:
        """The response, which is closed at the end. After a 401 it is that of a second try, with a new login."""
        login = await self._opened()
        async with self._read(login, *request) as response:
            if response.status != UNAUTHORIZED:
                yield response
                return
            # kubernetes.aio asks an exec plugin or an OIDC provider for a token once, and tokens expire.
            login.is_replaced = True
            if self._login is login:
                self._login = None
        async with self._read(await self._opened(), *request) as response:
            yield response

    @asynccontextmanager
    async def _read(self, login: _Login, *request: Any) -> AsyncGenerator[Any]:
        login.readers += 1
        try:
            response = await self._request(login.api, *request)
            try:
                yield response
            finally:
                response.close()
        finally:
            login.readers -= 1
            if login.is_replaced and not login.readers:
                await login.api.close()

    async def _request(
        self,
        api: Any,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        timeout: Any,
    ) -> Any:
        headers = {**api.default_headers, "Accept": "application/json", "Content-Type": content_type}
        await api.update_params_for_auth(headers, None, ["BearerToken"], path, method, None)
        rest, configuration = api.rest_client, api.configuration
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()  # as its own `request` does; closed with it
        return await rest.pool_manager.request(
            method,
            f"{configuration.host}{path}{'?' if query else ''}{urlencode(query, quote_via=quote)}",
            headers=headers,
            data=None if body is None else json.dumps(body),
            timeout=timeout,
            server_hostname=configuration.tls_server_name or None,
            proxy=configuration.proxy or None,
            proxy_headers=configuration.proxy_headers or None,
        )

    @property
    def _server(self) -> str:
        return str(self._login.api.configuration.host) if self._login is not None else "The API server"

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def in_thread(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call a function that blocks."""
        return await asyncio.to_thread(function, *arguments)

    async def close(self) -> None:
        """End all connections."""
        if self._login is not None:
            await self._login.api.close()
            self._login = None
