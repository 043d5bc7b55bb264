"""The connection to the API server, through the kubernetes package. The one of `aio` has the same methods."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from finetune_client.connecting import IN_CLUSTER_NAMESPACE, REQUEST_SECONDS, Source, active_namespace
from finetune_client.errors import UNAUTHORIZED, NoConnectionError, answer_of, error_of, no_answer
from finetune_client.watch_events import SILENCE_SECONDS
from finetune_view.fields import Object

Answer = TypeVar("Answer")


class Connection:
    """One user's requests to one API server. Opened by the first request."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._api: Any = None
        self._opening = threading.Lock()

    def namespace(self) -> str:
        """That of the kubeconfig's context or of the Pod."""
        from kubernetes import config

        if self._source.in_cluster:
            return IN_CLUSTER_NAMESPACE.read_text().strip() if IN_CLUSTER_NAMESPACE.exists() else "default"
        return active_namespace(self._source, config.list_kube_config_contexts)

    def _opened(self) -> Any:
        from kubernetes import client, config

        with self._opening:
            if self._api is None:
                configuration = client.Configuration()
                try:
                    if self._source.in_cluster:
                        config.load_incluster_config(client_configuration=configuration)
                    else:
                        config.load_kube_config(
                            self._source.file, self._source.context, configuration, persist_config=False
                        )
                except config.ConfigException as error:
                    raise NoConnectionError(self._source.problem(str(error))) from None
                self._api = client.ApiClient(configuration)
            return self._api

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request and its answer. Raises ApiError."""
        from urllib3.exceptions import HTTPError

        try:
            response = self._response(method, path, query or {}, body, content_type, REQUEST_SECONDS)
            status, data = response.status, response.read()
        except (HTTPError, OSError) as error:
            raise no_answer(f"{method} {path}", self._server, error) from error
        if not 200 <= status <= 299:
            raise error_of(status, data, f"{method} {path}")
        return answer_of(data, f"{method} {path}", self._server)

    def lines(self, path: str, query: Mapping[str, str], silence_seconds: float = SILENCE_SECONDS) -> Generator[bytes]:
        """The lines of a watch or a log, until either side ends it. Raises ApiError."""
        from urllib3.exceptions import HTTPError

        response = None
        try:
            response = self._response("GET", path, query, None, "application/json", silence_seconds)
            if response.status != 200:
                raise error_of(response.status, response.read(), f"GET {path}")
            rest = b""
            for chunk in response.stream(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
            if rest:
                yield rest
        except (HTTPError, OSError) as error:
            raise no_answer(f"GET {path}", self._server, error) from error
        finally:
            if response is not None:
                response.close()

    def _response(self, *request: Any) -> Any:
        """The response; after a 401 that of a second try, with a new login."""
        api = self._opened()
        response = self._request(api, *request)
        if response.status != UNAUTHORIZED:
            return response
        response.close()
        # The kubernetes package asks an exec plugin for another token only once the time that it named is over.
        with self._opening:
            if self._api is api:
                self._api = None
                api.rest_client.pool_manager.clear()
        return self._request(self._opened(), *request)

    def _request(
        self,
        api: Any,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        read_seconds: float,
    ) -> Any:
        from urllib3 import Timeout

        headers = {**api.default_headers, "Accept": "application/json", "Content-Type": content_type}
        api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        # With the ApiClient's connections and credentials, but not by its own `call_api`, which reads a stream whole.
        return api.rest_client.pool_manager.request(
            method,
            f"{api.configuration.host}{path}{'?' if query else ''}{urlencode(query, quote_via=quote)}",
            headers=headers,
            body=None if body is None else json.dumps(body),
            timeout=Timeout(connect=REQUEST_SECONDS, read=read_seconds),
            preload_content=False,
            retries=False,
        )

    @property
    def _server(self) -> str:
        return str(self._api.configuration.host) if self._api is not None else "The API server"

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def in_thread(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call a function that blocks: here in the same thread."""
        return function(*arguments)

    def close(self) -> None:
        """End all connections."""
        if self._api is not None:
            self._api.rest_client.pool_manager.clear()
            self._api = None
