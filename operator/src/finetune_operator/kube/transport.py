"""HTTP to the API server: one request and its answer, or a watch's lines as they come."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import orjson

from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object

REQUEST_TIMEOUT_SECONDS = 30.0
SILENCE_SECONDS = 150.0
"""A watch that says nothing for so long is dead: bookmarks come once a minute."""

Answered = Callable[[str, str, int, float], None]
"""Is told of every request that was sent: method, path, HTTP code (0: no answer), seconds."""


class Transport:
    """Requests over the connections of an ApiClient (kubernetes.aio), with its credentials. Errors are ApiError."""

    def __init__(self, api: Any, request_timeout_seconds: float, answered: Answered | None) -> None:
        self._api = api
        self._request_timeout_seconds = request_timeout_seconds
        self._answered = answered

    async def send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | list[Object] | None, content_type: str
    ) -> Object:
        """Send a request and read its answer, within the time for both."""
        import aiohttp
        from kubernetes.aio.client.exceptions import ApiException

        started, code = time.monotonic(), 0
        try:
            response = await self._open(method, path, query, body, content_type, self._request_timeout_seconds)
            data = await response.read()
            code = response.status
        except ApiException as error:
            raise ApiError(error.status or 0, str(error.reason), str(error.body)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error) or f"no answer to {method} {path}") from error
        finally:
            if self._answered is not None:
                self._answered(method, path, code, time.monotonic() - started)
        if not 200 <= code <= 299:
            raise _api_error(code, data, response.headers.get("Retry-After"))
        return _parsed(data, f"{method} {path}")

    async def lines(self, path: str, query: Mapping[str, str], seconds: float) -> AsyncGenerator[Object | None]:
        """What a watch says: None once it is open, and then each line, until it ends (after so many seconds).

        Raises ApiError when it is refused, breaks off, or falls silent.
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
            async for line in _lines(response.response.content.iter_any()):
                yield _parsed(line, f"the watch of {path}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error) or f"the watch of {path} fell silent") from error
        finally:
            if response is not None:
                response.response.close()

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | list[Object] | None,
        content_type: str,
        within: Any,
    ) -> Any:
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(*request, _request_timeout=within)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Lines of any length: those of aiohttp may have 128 KiB, an object some MiB. What follows the last end is none."""
    begun: list[bytes] = []
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for next_line in others:
            yield b"".join(begun)
            begun = [next_line]


def _parsed(data: bytes, what: str) -> Object:
    try:
        answer = orjson.loads(data)
    except ValueError as error:
        raise ApiError(0, "InvalidAnswer", f"{what} was answered with {data[:100]!r}") from error
    assert isinstance(answer, dict)
    return answer


def _api_error(status: int, data: bytes, retry_after: str | None) -> ApiError:
    """The error of an answer. Retry-After is in seconds; every write of ours may be sent again."""
    seconds = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        answer = orjson.loads(data)
        return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")), seconds)
    except (ValueError, AttributeError):
        return ApiError(status, "", data[:500].decode(errors="replace"), seconds)
