"""The responses of an API, read as untrusted input."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from finetune_grading.exact_json import write_json

MOST_BYTES = 32 * 1024 * 1024
LONGEST_WAIT_SECONDS = 120.0
_TEXT_LENGTH = 300
OPTIONS = ("response_format", "seed", "temperature", "top_p")
"""Options that a request can do without: not every API and model supports them."""


@dataclass(frozen=True)
class Response:
    """An HTTP response; `body` is None if it is not a JSON object."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None
    seconds: float = 0.0
    """From the request to the response's last byte."""


async def read_response(
    client: httpx2.AsyncClient, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> Response:
    """Send a POST of JSON. Raises httpx2.HTTPError, also for an answer that is too large."""
    start = time.monotonic()
    content, sent = bytearray(), {"Content-Type": "application/json", **headers}
    # In the order of the dataset: the model reads the tools as they are sent.
    question = write_json(body, sort_keys=False).encode()
    async with client.stream("POST", url, content=question, headers=sent) as response:
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                raise httpx2.ReadError(f"the answer has more than {MOST_BYTES} bytes")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = None
    found = value if isinstance(value, dict) else None
    return Response(response.status_code, response.headers, found, time.monotonic() - start)


def seconds_to_wait(response: Response) -> float | None:
    """Retry-After, in seconds or as a date, at most two minutes; None where there is none.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = response.headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        moment = email.utils.parsedate_tz(text)
        if moment is None:
            return None
        seconds = email.utils.mktime_tz(moment) - time.time()
    return min(LONGEST_WAIT_SECONDS, max(0.0, seconds)) if math.isfinite(seconds) else None


def error_text(response: Response) -> str:
    """What the API says is wrong, at most 300 characters."""
    error = _error(response)
    message = error.get("message") if isinstance(error, Mapping) else error
    return message[:_TEXT_LENGTH] if isinstance(message, str) else ""


def is_out_of_quota(response: Response) -> bool:
    """Whether nothing more is answered until the quota is raised, in OpenAI's words."""
    error = _error(response)
    named = [error.get(name) for name in ("code", "type")] if isinstance(error, Mapping) else []
    return response.status in (402, 429) and (response.status == 402 or "insufficient_quota" in named)


def refused_option(response: Response, sent: Mapping[str, Any]) -> str | None:
    """The option for which the API refuses a request, if that can do without it."""
    if response.status not in (400, 422):
        return None
    error = _error(response)
    named = error.get("param") if isinstance(error, Mapping) else None
    asked = [option for option in OPTIONS if option in sent]
    for option in asked:
        if isinstance(named, str) and named.split(".")[0] == option:
            return option
    # Some name it in the message only.
    return next((option for option in asked if option in error_text(response)), None)


def _error(response: Response) -> Any:
    """OpenAI's `error`, or FastAPI's `detail`."""
    body = response.body or {}
    return body.get("error", body.get("detail", body))
