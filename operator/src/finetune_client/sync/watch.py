# Made from finetune_client/aio/watch.py by `make generate`; do not edit.
"""Follows one object: reads it, watches it from there, and reads it again whenever the watch ends, for any reason."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing

from finetune_client.errors import GONE, ApiError, DeletedError, ForbiddenError, NotFoundError
from finetune_client.kinds import Contract
from finetune_client.sync.connection import Connection
from finetune_client.waiting import Outage
from finetune_client.watch_events import POLL_SECONDS, SHORTEST_SECONDS, WATCH_SECONDS, changed
from finetune_view.fields import Object


def states(
    connection: Connection,
    contract: Contract,
    namespace: str,
    name: str,
    deadline: float,
    next_check: Callable[[float], float],
) -> Generator[Object]:
    """The object now, after each change, and when `next_check` is due; ends at the deadline.

    `next_check`: seconds until then. Raises DeletedError, ForbiddenError, or ApiError after a long outage.
    """
    outage, may_watch = Outage(), True
    while time.monotonic() < deadline:
        try:
            found = connection.send("GET", contract.path(namespace, name))
            outage.answered()
            yield found
            end = min(deadline, time.monotonic() + WATCH_SECONDS)
            if may_watch:
                try:
                    with closing(_changes(connection, contract, found, end, next_check)) as seen:
                        for one in seen:
                            yield one
                except ForbiddenError:
                    may_watch = False  # who may read it can still look at it every few seconds
            # A proxy may end each watch at once, and the next check may be due now.
            pause = SHORTEST_SECONDS if may_watch else POLL_SECONDS
        except NotFoundError:
            raise DeletedError(f"{contract.kind.name} {name} was deleted.") from None
        except ApiError as error:
            # The version to watch from may be forgotten by the time the watch is opened.
            pause = SHORTEST_SECONDS if error.status == GONE else outage.pause(error, time.monotonic())
        connection.sleep(min(pause, max(0.0, deadline - time.monotonic())))


def _changes(
    connection: Connection, contract: Contract, found: Object, end: float, next_check: Callable[[float], float]
) -> Generator[Object]:
    """One watch: each change until `end`, or until the next check is due."""
    metadata = found["metadata"]
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "fieldSelector": f"metadata.name={metadata['name']}",
        "resourceVersion": str(metadata["resourceVersion"]),
    }
    seconds = _seconds(end, next_check)
    query["timeoutSeconds"] = str(seconds)
    until = time.monotonic() + seconds
    path = contract.path(metadata["namespace"])
    with closing(connection.lines(path, query)) as lines:
        for line in lines:
            if (one := changed(line)) is not None:
                yield one
            if time.monotonic() + _seconds(end, next_check) < until - 1:
                return


def _seconds(end: float, next_check: Callable[[float], float]) -> int:
    now = time.monotonic()
    return max(1, math.ceil(min(end - now, next_check(now))))
