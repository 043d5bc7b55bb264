"""HTTP to the API server: a request and its response, or the lines of a watch as they arrive."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object

REQUEST_TIMEOUT_SECONDS = 30.0
SILENCE_SECONDS = 150.0
"""A watch that has been silent for this long is dead: bookmarks arrive every minute."""

ResponseObserver = Callable[[str, str, int, float], None]
"""Called after every request with its method, path, HTTP code (0: no response) and duration in seconds."""


class Transport:
    """Sends requests over an ApiClient (kubernetes.aio) with its credentials. Errors are raised as ApiError."""

    def __init__(self, api: Any, request_timeout_seconds: float, on_response: ResponseObserver | None) -> None:
        self._api = api
        self._request_timeout_seconds = request_timeout_seconds
        self._on_response = on_response

    async def send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | list[Object] | None, content_type: str
    ) -> Object:
        """Send a request and read its response; the timeout covers both."""
        import aiohttp

        started, code = time.monotonic(), 0
        try:
            timeout = aiohttp.ClientTimeout(total=self._request_timeout_seconds)
            response = await self._open(method, path, query, body, content_type, timeout)
            data = await response.read()
            code = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error) or f"no answer to {method} {path}") from error
        finally:
            if self._on_response is not None:
                self._on_response(method, path, code, time.monotonic() - started)
        if not 200 <= code <= 299:
            raise _api_error(code, data, response.headers.get("Retry-After"))
        return _parse(data, f"{method} {path}")

    async def lines(self, path: str, query: Mapping[str, str], seconds: float) -> AsyncGenerator[Object | None]:
        """Open a watch for `seconds`: yields None once it is open, and then each line until it ends.

        Raises ApiError if it is rejected, breaks off or falls silent.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=seconds + self._request_timeout_seconds,
            sock_connect=self._request_timeout_seconds,
            sock_read=SILENCE_SECONDS,
        )
        response = None
        try:
            response = await self._open("GET", path, query, None, "application/json", timeout)
            if response.status != 200:
                raise _api_error(response.status, await response.read(), response.headers.get("Retry-After"))
            yield None
            async for line in _lines(response.content.iter_any()):
                yield _parse(line, f"the watch of {path}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error) or f"the watch of {path} fell silent") from error
        finally:
            if response is not None:
                response.close()

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | list[Object] | None,
        content_type: str,
        request_timeout: Any,
    ) -> Any:
        """With the ApiClient's connections and credentials, but not by its own `call_api`: that copies each body."""
        headers = {**self._api.default_headers, "Accept": "application/json", "Content-Type": content_type}
        await self._api.update_params_for_auth(headers, None, ["BearerToken"], path, method, None)
        rest, configuration = self._api.rest_client, self._api.configuration
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()  # As its own `request` does; closed with it.
        return await rest.pool_manager.request(
            method,
            f"{configuration.host}{path}{'?' if query else ''}{urlencode(query, quote_via=quote)}",
            headers=headers,
            data=None if body is None else orjson.dumps(body),
            timeout=request_timeout,
            server_hostname=configuration.tls_server_name or None,
            proxy=configuration.proxy or None,
            proxy_headers=configuration.proxy_headers or None,
        )


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Lines of any length (aiohttp's limit is 128 KiB, an object may have MiB), without an unterminated last one."""
    partial_line: list[bytes] = []
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        partial_line.append(first)
        for next_line in others:
            yield b"".join(partial_line)
            partial_line = [next_line]


def _parse(data: bytes, source: str) -> Object:
    try:
        answer = orjson.loads(data)
    except ValueError as error:
        raise ApiError(0, "InvalidAnswer", f"{source} was answered with {data[:100]!r}") from error
    assert isinstance(answer, dict)
    return answer


def _api_error(status: int, data: bytes, retry_after: str | None) -> ApiError:
    """The error of a response. Retry-After is in seconds; every write of ours may be repeated."""
    seconds = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        answer = orjson.loads(data)
        return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")), seconds)
    except (ValueError, AttributeError):
        return ApiError(status, "", data[:500].decode(errors="replace"), seconds)
