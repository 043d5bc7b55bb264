"""What the API server refuses, or fails to answer."""

from __future__ import annotations

NAME_CONFLICT = "NameConflict"


class ApiError(Exception):
    """The API server refused or failed; `status` is the HTTP code (0: no answer), `retry_after` its wish in seconds."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
