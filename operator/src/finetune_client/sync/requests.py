# Made from finetune_client/aio/requests.py by `make generate`; do not edit.
"""Requests that are repeated when there was no answer: each of them may be, as creating goes by the name."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_client.errors import ApiError
from finetune_client.sync.connection import Connection
from finetune_view.fields import Object

TRY_PAUSES = (0.5, 1.0, 2.0)
PAGE_SIZE = 500
MERGE_PATCH = "application/merge-patch+json"


def ask(
    connection: Connection,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: Object | None = None,
    content_type: str = "application/json",
) -> Object:
    """One request and its answer. Raises ApiError."""
    for pause in TRY_PAUSES:
        try:
            return connection.send(method, path, query, body, content_type)
        except ApiError as error:
            if not error.may_heal:
                raise
        connection.sleep(pause)
    return connection.send(method, path, query, body, content_type)


def items(connection: Connection, path: str, query: Mapping[str, str] | None = None) -> list[Object]:
    """All objects of a list, page by page. Raises ApiError."""
    found: list[Object] = []
    chosen = {"limit": str(PAGE_SIZE), **(query or {})}
    while True:
        try:
            page = ask(connection, "GET", path, chosen)
        except ApiError as error:
            if error.status != 410 or "continue" not in chosen:
                raise
            # The pages' version was forgotten: start over without pages, which can't expire.
            found, chosen = [], dict(query or {})
            continue
        found += page.get("items") or []
        following = (page.get("metadata") or {}).get("continue")
        if not following:
            return found
        chosen["continue"] = following
