# Made from finetune_client/aio/logs.py by `make generate`; do not edit.
"""The log of the right Pod of a run, line by line."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from finetune_client.errors import ApiError, ForbiddenError, InvalidSpecError, NoResultError, NotFoundError
from finetune_client.kinds import Contract, core_path
from finetune_client.log_stream import LogPosition
from finetune_client.sync.connection import Connection
from finetune_client.sync.requests import ask, items
from finetune_client.waiting import Outage
from finetune_view.children import Pod, selector, sorted_pods
from finetune_view.fields import Fields
from finetune_view.log_choice import NoPodsError, Wanted, chosen, container_of, kept_log
from finetune_view.object_view import ObjectView, object_view

POLL_SECONDS = 2.0
"""Between two looks for a Pod that is to come, or a container that is to start."""
SILENCE_SECONDS = 3600.0
"""A log may be silent for long; after this the stream is reopened."""
ENDED = frozenset({"Succeeded", "Failed"})


def pods_of(connection: Connection, view: ObjectView) -> list[Pod]:
    """The Pods of an object, oldest first. Raises ApiError."""
    query = {"labelSelector": selector(view)}
    return sorted_pods(items(connection, core_path("pods", view.namespace), query))


def log_lines(connection: Connection, view: ObjectView, wanted: Wanted, tail: int | None) -> Generator[str]:
    """What the logs of the Pods have now; the end that the status keeps, if they are gone. Raises FineTuneError."""
    try:
        pods = chosen(view, pods_of(connection, view), wanted)
    except (NoPodsError, ForbiddenError) as error:
        kept = kept_log(view).splitlines()
        if not kept:
            raise error if isinstance(error, ForbiddenError) else NoResultError(str(error)) from None
        for text in kept if tail is None else kept[-tail:]:
            yield text
        return
    for pod in pods:
        prefix = f"[{pod.name}] " if len(pods) > 1 else ""
        query = {"container": container_of(pod), "timestamps": "true"}
        if tail is not None:
            query["tailLines"] = str(tail)
        position = LogPosition()
        try:
            with closing(connection.lines(_log_path(pod), query)) as lines:
                for line in lines:
                    if (shown := position.take(line)) is not None:
                        yield prefix + shown
        except InvalidSpecError as error:
            raise NoResultError(f"{error} job.events() says why; follow=True waits for it.") from None


def followed_lines(
    connection: Connection, contract: Contract, view: ObjectView, wanted: Wanted, deadline: float
) -> Generator[str]:
    """The log of the newest Pod as it is written, and then that of the next one, until the run has ended.

    Raises FineTuneError.
    """
    done: set[str] = set()
    outage = Outage()
    while time.monotonic() < deadline:
        try:
            found = connection.send("GET", contract.path(view.namespace, view.name))
            newest = object_view(found)
            pods = pods_of(connection, newest)
            outage.answered()
        except ApiError as error:
            connection.sleep(outage.pause(error, time.monotonic()))
            continue
        try:
            pod = chosen(newest, pods, wanted)[-1]
        except NoPodsError:
            pod = None
        if newest.uid != view.uid:
            return
        if pod is not None and pod.uid not in done:
            with closing(_followed_pod(connection, pod, deadline)) as lines:
                for line in lines:
                    yield line
            done.add(pod.uid)
        elif newest.outcome is not None:
            return
        else:
            connection.sleep(POLL_SECONDS)


def _followed_pod(connection: Connection, pod: Pod, deadline: float) -> Generator[str]:
    """The lines of one Pod until it has ended; a stream that breaks goes on with the next line."""
    position, outage = LogPosition(), Outage()
    while time.monotonic() < deadline:
        try:
            position.reopened()
            query = {"container": container_of(pod), "timestamps": "true", "follow": "true", **position.since}
            with closing(connection.lines(_log_path(pod), query, SILENCE_SECONDS)) as lines:
                for line in lines:
                    outage.answered()
                    if (text := position.take(line)) is not None:
                        yield text
                    if time.monotonic() >= deadline:
                        return
        except NotFoundError:
            return  # the Pod is gone
        except InvalidSpecError:
            pass  # Its container has not started yet, or never will.
        except ApiError as error:
            connection.sleep(min(outage.pause(error, time.monotonic()), max(0.0, deadline - time.monotonic())))
            continue
        if (now := _unless_ended(connection, pod)) is None:
            return
        if container_of(now) != container_of(pod):
            position = LogPosition()  # What fetches the model is done; the server's log follows.
        pod = now
        connection.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _unless_ended(connection: Connection, pod: Pod) -> Pod | None:
    """The Pod as it is now; None once it has ended."""
    try:
        found = ask(connection, "GET", core_path("pods", _namespace(pod), pod.name))
    except NotFoundError:
        return None
    ended = found["metadata"]["uid"] != pod.uid or (found.get("status") or {}).get("phase") in ENDED
    return None if ended else Pod(Fields(found))


def _namespace(pod: Pod) -> str:
    return pod.fields.text("metadata", "namespace")


def _log_path(pod: Pod) -> str:
    return core_path("pods", _namespace(pod), pod.name) + "/log"
