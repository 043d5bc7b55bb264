"""Errors of requests to the API server."""

from __future__ import annotations

import re

NAME_CONFLICT = "NameConflict"
_DENIED = re.compile(r'admission webhook "[^"]*" denied the request|ValidatingAdmissionPolicy .* denied request')


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

    @property
    def is_denied(self) -> bool:
        """Whether a webhook or policy refused the request: each chooses its code, also that of a missing object."""
        return _DENIED.search(self.message) is not None
