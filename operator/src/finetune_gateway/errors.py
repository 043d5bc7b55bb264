"""What the gateway itself answers, in OpenAI's envelope."""

from __future__ import annotations

from typing import Any

RETRY_AFTER_SECONDS = 1
_SERVER_ERRORS = 500


class RefusedError(Exception):
    """A request that gets no answer of a server; `status` is the HTTP code."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """A client comes again after a 429 and a 503."""
        return {"Retry-After": str(RETRY_AFTER_SECONDS)} if self.status in (429, 503) else {}

    def envelope(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = "invalid_request_error" if self.status < _SERVER_ERRORS else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}
