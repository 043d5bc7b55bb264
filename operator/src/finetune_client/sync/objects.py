# Made from finetune_client/aio/objects.py by `make generate`; do not edit.
"""What the objects of every kind have in common: a handle with the state as it was last read."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, ClassVar, Self

from finetune_client.errors import ApiError, DeletedError, FineTuneError, ForbiddenError, NotFoundError
from finetune_client.gitops_warning import warn_of_gitops
from finetune_client.kinds import FIELD_MANAGER, Contract, core_path
from finetune_client.results.metrics import SeenProgress
from finetune_client.results.storage import StorageOptions
from finetune_client.sync.connection import Connection
from finetune_client.sync.logs import followed_lines, log_lines
from finetune_client.sync.requests import MERGE_PATCH, ask, items
from finetune_client.sync.watch import states
from finetune_client.waiting import DAY, STALLED_SECONDS, Progress, Until, Waiting, progress_of, timed_out
from finetune_view.children import Event, selector, sorted_events
from finetune_view.fields import Object
from finetune_view.log_choice import Wanted
from finetune_view.object_view import object_view

DELETE_SECONDS = 120.0


class ClusterObject:
    """One object. Its properties say what it was when it was last read: by the client, `refresh` or `wait`."""

    contract: ClassVar[Contract]

    def __init__(self, connection: Connection, found: Object, storage: StorageOptions) -> None:
        self._connection = connection
        self._storage = storage
        self._seen = SeenProgress()
        self._view = object_view(found)
        self._take(found)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.namespace}/{self.name}: {self.progress}>"

    @property
    def name(self) -> str:
        """metadata.name"""
        return self._view.name

    @property
    def namespace(self) -> str:
        """metadata.namespace"""
        return self._view.namespace

    @property
    def uid(self) -> str:
        """metadata.uid: another object of the same name has another one."""
        return self._view.uid

    @property
    def phase(self) -> str:
        """status.phase; "" while the operator has not looked at it."""
        return self._view.phase

    @property
    def progress(self) -> Progress:
        """Where it stands; `str()` is one line."""
        return progress_of(self._view)

    @property
    def manifest(self) -> Object:
        """The whole object, as the API server has it."""
        found: Object = self._view.fields.value
        return found

    def _take(self, found: Object) -> None:
        self._view = object_view({"kind": self.contract.kind.name, **found})
        self._seen.take(self._view)

    @property
    def _path(self) -> str:
        return self.contract.path(self.namespace, self.name)

    def refresh(self) -> Self:
        """Read it again. Raises DeletedError if it is gone, or another one has its name."""
        try:
            found = ask(self._connection, "GET", self._path)
        except NotFoundError:
            raise DeletedError(f"{self._view.resource} was deleted.") from None
        if found["metadata"]["uid"] != self.uid:
            raise DeletedError(f"{self._view.resource} was deleted, and another one of its name was created.")
        self._take(found)
        return self

    def wait(
        self,
        until: Until = "Succeeded",
        timeout: float = DAY,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        stalled_after: float = STALLED_SECONDS,
    ) -> Self:
        """Wait until it has started, succeeded (a deployment: serves) or ended.

        `on_progress` is called after each change. Raises RunFailedError, StalledError when it has waited for someone
        for `stalled_after` seconds, WaitTimeoutError after `timeout` seconds, and DeletedError. An API server that
        does not answer is asked again for ten minutes.
        """
        waiting = Waiting(self.contract, self.uid, until, stalled_after)
        last: Progress | None = None
        found = states(
            self._connection,
            self.contract,
            self.namespace,
            self.name,
            time.monotonic() + timeout,
            waiting.seconds_left,
        )
        with closing(found) as seen:
            for one in seen:
                view = object_view({"kind": self.contract.kind.name, **one})
                if view.uid == self.uid:
                    self._take(one)
                    if on_progress is not None and self.progress != last:
                        last = self.progress
                        on_progress(last)
                if waiting.is_over(view, time.monotonic()):
                    return self
        raise timed_out(self.contract, self._view, until, timeout)

    def logs(
        self,
        *,
        follow: bool = False,
        rank: int | None = None,
        all_pods: bool = False,
        previous: bool = False,
        preflight: bool = False,
        tail: int | None = None,
        timeout: float = DAY,
    ) -> Generator[str]:
        """The lines of the newest try's log, by default of rank 0.

        `follow` goes on with what is written, and with the Pods to come, until the run has ended. If the Pods are gone,
        these are the last lines of the one that failed, which the status keeps. Raises NoResultError if there are none.
        """
        if follow and (all_pods or previous or tail is not None):
            raise FineTuneError("follow=True can't be combined with all_pods, previous or tail.")
        if all_pods and rank is not None:
            raise FineTuneError("rank and all_pods exclude each other.")
        wanted = Wanted("preflight" if preflight else None, rank, all_pods, previous)
        if follow:
            found = followed_lines(self._connection, self.contract, self._view, wanted, time.monotonic() + timeout)
        else:
            self.refresh()
            found = log_lines(self._connection, self._view, wanted, tail)
        with closing(found) as lines:
            for line in lines:
                yield line

    def events(self) -> list[Event]:
        """The Events about it, its Jobs and its Pods, oldest first. Clusters keep them for an hour."""
        self.refresh()
        children: list[Object] = []
        for plural in ("jobs", "pods"):
            try:
                query = {"labelSelector": selector(self._view)}
                children += items(self._connection, core_path(plural, self.namespace), query)
            except ForbiddenError:
                continue  # their Events are found by their Jobs' names
        return sorted_events(items(self._connection, core_path("events", self.namespace)), self._view, children)

    def delete(self, *, wait: bool = False, timeout: float = DELETE_SECONDS) -> None:
        """Delete it; `wait` until it is gone. No error if it is gone already."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": self.uid}}
        try:
            ask(self._connection, "DELETE", self._path, body=body)
        except NotFoundError:
            return
        except ApiError as error:
            if error.status == 409:
                return  # another one has its name
            raise
        deadline = time.monotonic() + timeout
        while wait:
            try:
                self.refresh()
            except DeletedError:
                return
            if time.monotonic() >= deadline:
                raise FineTuneError(
                    f"{self._view.resource} is not gone after {timeout:g} s. `kubectl describe` shows the finalizers "
                    "that it waits for."
                )
            self._connection.sleep(0.5)

    def _patch(self, spec: Mapping[str, Any]) -> Self:
        """Change fields of the spec, of this object and of no later one with its name."""
        body: Object = {"metadata": {"uid": self.uid}, "spec": dict(spec)}
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        self._take(ask(self._connection, "PATCH", self._path, query, body, MERGE_PATCH))
        warn_of_gitops(self._view)
        return self
