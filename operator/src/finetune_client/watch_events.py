"""The lines of a watch: pure."""

from __future__ import annotations

import json

from finetune_client.errors import ApiError, DeletedError
from finetune_view.fields import Object

WATCH_SECONDS = 240.0
"""A watch is reopened after this long; the API server may end it earlier."""
SILENCE_SECONDS = 150.0
"""A watch without even a bookmark for so long is dead: they come every minute."""
POLL_SECONDS = 5.0
"""Between two looks where watching is not allowed."""
SHORTEST_SECONDS = 1.0
"""Between two watches, should a proxy end each at once."""


def changed(line: bytes) -> Object | None:
    """The object of an event; None for a bookmark. Raises ApiError or DeletedError for what ends the watch."""
    try:
        event = json.loads(line)
        kind, found = event["type"], dict(event["object"])
    except (ValueError, KeyError, TypeError):
        raise ApiError(0, "InvalidAnswer", f"The API server sent {line[:100]!r} in a watch.") from None
    if kind == "ERROR":
        # 410: that version is forgotten. The object is read again, as after any end of a watch.
        reason, message = str(found.get("reason", "")), str(found.get("message", ""))
        raise ApiError(0, reason or "WatchEnded", message or "The API server ended the watch.")
    if kind == "DELETED":
        metadata = found.get("metadata") or {}
        raise DeletedError(f"{found.get('kind')} {metadata.get('name')} was deleted.")
    return found if kind in ("ADDED", "MODIFIED") else None
