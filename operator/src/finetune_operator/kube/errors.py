"""Errors of requests to the API server."""

from __future__ import annotations

NAME_CONFLICT = "NameConflict"


class ApiError(Exception):
    """A rejected or failed request; `status` is the HTTP code (0: no response), `retry_after` is in seconds."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.written_kind: str | None = None
        """The kind of the object that was to be written."""
