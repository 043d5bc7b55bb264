"""The client of the Kubernetes API: a few verbs over the official asyncio client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from finetune_operator.kube.errors import NAME_CONFLICT, ApiError
from finetune_operator.kube.reader import PartlyLive, Reader
from finetune_operator.kube.resources import CONDITIONS_MANAGER, FIELD_MANAGER, RESOURCES, SERVICES, Object, Resource
from finetune_operator.kube.transport import REQUEST_TIMEOUT_SECONDS, ResponseObserver, Transport

_Objects = list[Object]

STORAGE_FINALIZER_MANAGER = "finetune-operator-storage"
"""Writes metadata.finalizers and nothing else, so that adding or removing one never touches a spec."""
RETRY_AFTER_SECONDS = 20.0
"""The longest that one request is delayed when the API server asks for it (429 and 5xx with Retry-After)."""
PAGE_SIZE = 500
LARGER_PAGES = 10
"""How many times larger the pages of a list are that starts over because it took too long."""
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Page:
    """A page of a list; all pages of a list show one resourceVersion."""

    items: list[Object]
    version: str
    is_first: bool
    """The list starts, or starts over, here: earlier pages are to be discarded."""


@dataclass(frozen=True)
class Target:
    """The object, or its subresource, that a write changes."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str | None = None


class Kube:
    """Requests to one API server. Every request has a deadline; errors are raised as ApiError."""

    def __init__(
        self,
        api: Any,
        request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        on_response: ResponseObserver | None = None,
        resources: Iterable[Resource] = RESOURCES,
        field_manager: str = FIELD_MANAGER,
    ) -> None:
        self._transport = Transport(api, request_timeout_seconds, on_response)
        self._field_manager = field_manager
        self._resources = {(resource.api_version, resource.kind): resource for resource in resources}

    @property
    def live(self) -> Reader:
        """Reads the current state from the API server, whatever is cached."""
        return self

    def live_for(self, resources: Collection[Resource]) -> Reader:
        """Reads these resources from the API server, and the others from the cache."""
        return PartlyLive(self, resources)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None if it does not exist."""
        return await self._get(resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Object]:
        """The objects of a namespace (or the cluster) with these labels and fields: all (paged), or at most `limit`."""
        return (await self._list(resource, namespace, labels, fields=fields, limit=limit)).items

    def waits_for_answer(self, resource: Resource, body: Object, deliver: Callable[[], None]) -> bool:
        """Whether an event about the object is delivered later; a client that caches knows its own writes."""
        return False

    def forget_finished(self, resource: Resource, parent: Object) -> None:
        """Nothing remains to be done for a finished object: a cache may drop it."""

    async def _get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        try:
            return await self._request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _list(
        self,
        resource: Resource,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Page:
        selectors = {
            name: ",".join(f"{key}={value}" for key, value in selector.items())
            for name, selector in (("labelSelector", labels), ("fieldSelector", fields))
            if selector
        }
        found, version = list[Object](), ""
        async with aclosing(self.pages(resource, selectors, namespace=namespace, size=limit or PAGE_SIZE)) as pages:
            async for page in pages:
                found = [*([] if page.is_first else found), *page.items]
                version = page.version
                if limit is not None:
                    break
        return Page(found, version, is_first=True)

    async def pages(
        self,
        resource: Resource,
        selectors: Mapping[str, str],
        *,
        namespace: str | None = None,
        size: int = PAGE_SIZE,
    ) -> AsyncGenerator[Page]:
        """The objects at one resourceVersion, page by page; see Page.is_first."""
        # The items of a list have neither.
        type_meta = {"apiVersion": resource.api_version, "kind": resource.kind}
        query, is_first, restarts = {"limit": str(size), **selectors}, True, 0
        while True:
            try:
                page = await self._request("GET", resource.path(namespace), query=query)
            except ApiError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                # The pages' resourceVersion was compacted. Going on with the token in this answer would miss what has
                # changed on earlier pages. So it starts over: with larger pages, then with none, which can't expire.
                restarts += 1
                limit = {"limit": str(size * LARGER_PAGES)} if restarts == 1 else {}
                query, is_first = {**limit, **selectors}, True
                continue
            meta = page.get("metadata", {})
            items = [{**item, **type_meta} for item in page.get("items", [])]
            yield Page(items, str(meta.get("resourceVersion", "")), is_first=is_first)
            if not meta.get("continue"):
                return
            query, is_first = {**query, "continue": meta["continue"]}, False

    def watch(
        self, resource: Resource, selectors: Mapping[str, str], version: str, seconds: float
    ) -> AsyncGenerator[Object | None]:
        """Watch for `seconds` from a resourceVersion on: yields None once the watch is open, then each event."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, **selectors}
        return self._transport.lines(resource.path(None), {**query, "timeoutSeconds": f"{math.ceil(seconds)}"}, seconds)

    async def token_issuer(self) -> str | None:
        """The issuer of service account tokens; None if the API server does not return it."""
        try:
            issuer = (await self._request("GET", "/.well-known/openid-configuration")).get("issuer")
        except ApiError:
            return None
        return issuer if isinstance(issuer, str) else None

    async def apply(self, body: Object) -> Object:
        """Server-side apply under our field manager."""
        return await self._apply(body, None)

    async def apply_status(self, body: Object) -> Object:
        """Server-side apply of the status subresource.

        With `metadata.resourceVersion`, the API server rejects it (409) if the object has changed since it was read, or
        was replaced by another of the same name. `metadata.uid` would not help: the API server drops it first.
        """
        return await self._apply(body, "status")

    async def replace_status(self, body: Object) -> Object:
        """Replace the whole status, whichever field managers own it. Raises ApiError 409 as apply_status does."""
        metadata = body["metadata"]
        changes = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/status", "value": body["status"]},
        ]
        target = self._target(body, "status")
        return await self._write("PATCH", target, FIELD_MANAGER, body=changes, content_type=_JSON_PATCH)

    async def apply_conditions(self, body: Object) -> Object:
        """Server-side apply of conditions only: all other status fields keep their values and owners."""
        return await self._apply(body, "status", CONDITIONS_MANAGER)

    async def add_finalizer(self, parent: Object, finalizer: str) -> Object:
        """Add a finalizer to an object; returns the object. Raises ApiError 409 if it has changed since it was read."""
        return await self._write_finalizers(parent, [*parent["metadata"].get("finalizers", ()), finalizer])

    async def remove_finalizer(self, parent: Object, finalizer: str) -> Object:
        """Remove every entry of a finalizer, whoever added it, and no others; returns the object.

        Raises ApiError 409 if the object has changed since it was read, or still has the finalizer afterwards.
        """
        others = [name for name in parent["metadata"].get("finalizers", ()) if name != finalizer]
        left = await self._write_finalizers(parent, others)
        if finalizer in left["metadata"].get("finalizers", ()):
            raise ApiError(409, "FinalizerNotRemoved", f"{parent['metadata']['name']!r} still has {finalizer}")
        return left

    async def _write_finalizers(self, parent: Object, finalizers: Sequence[str]) -> Object:
        """A merge patch: server-side apply can't remove an entry of another field manager (a restored backup)."""
        current = parent["metadata"]
        metadata = {name: current[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        metadata["finalizers"] = list(finalizers)
        body = {**{name: parent[name] for name in ("apiVersion", "kind")}, "metadata": metadata}
        target = self._target(body)
        return await self._write("PATCH", target, STORAGE_FINALIZER_MANAGER, body=body, content_type=_MERGE_PATCH)

    async def replace(self, body: Object) -> Object:
        """PUT an object. Raises ApiError 409 if it has changed since it was read (resourceVersion)."""
        return await self._write("PUT", self._target(body), FIELD_MANAGER, body=body)

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str | None, *, dependents_first: bool = False
    ) -> None:
        """Delete the object with this UID and, in the background, its dependents; no error if it is gone or replaced.

        `dependents_first` (foreground propagation) deletes the dependents even if a finalizer keeps the object itself.
        """
        body: Object = {"propagationPolicy": "Foreground" if dependents_first else "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._write("DELETE", Target(resource, namespace, name), body=body)
        except ApiError as error:
            if error.is_denied or error.status not in (404, 409):
                raise

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST an object."""
        target = Target(resource, namespace, body.get("metadata", {}).get("name", ""))
        return await self._write("POST", target, self._field_manager, body=body)

    async def create_once(self, body: Object) -> bool:
        """Create an object with a deterministic name, unless it was already created before a crash.

        Returns whether it did. Raises ApiError 409 NameConflict if the name is taken by an object of another
        controller, or of none.
        """
        resource, metadata = self._resource(body), body["metadata"]
        try:
            await self.create(resource, metadata["namespace"], body)
            return True
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            if not await self._is_already_created(resource, body):
                message = (
                    f"A {body['kind']} named {metadata['name']!r} already exists and does not belong to this object. "
                    "Delete it."
                )
                raise ApiError(409, NAME_CONFLICT, message) from error
            return False

    def _resource(self, body: Object) -> Resource:
        return self._resources[body["apiVersion"], body["kind"]]

    async def _is_already_created(self, resource: Resource, body: Object) -> bool:
        """Whether the object of this name has the same controller (or is gone: the next reconcile creates it)."""
        owners = body["metadata"].get("ownerReferences")
        if owners is None:
            return True
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        if resource == SERVICES:
            found = [await self.get(resource, namespace, name) or body]
        else:
            found = await self.list(resource, namespace, fields={"metadata.name": name}) or [body]
        wanted = {owner["uid"] for owner in owners if owner.get("controller")}
        present = found[0]["metadata"].get("ownerReferences", ())
        return wanted == {owner["uid"] for owner in present if owner.get("controller")}

    async def merge(self, body: Object) -> None:
        """Set the given fields of an object and leave all others; create it if it does not exist.

        With a resourceVersion, raises ApiError 404 or 409 if the object is gone or has changed since it was read.
        """
        try:
            await self.merge_existing(body)
        except ApiError as error:
            if error.status != 404 or "resourceVersion" in body["metadata"]:
                raise
            await self.create(self._resource(body), body["metadata"]["namespace"], body)

    async def merge_existing(self, body: Object) -> None:
        """Set the given fields of an existing object and leave all others. Raises ApiError 404."""
        await self._write("PATCH", self._target(body), self._field_manager, body=body, content_type=_MERGE_PATCH)

    async def _apply(self, body: Object, subresource: str | None, manager: str = FIELD_MANAGER) -> Object:
        target = self._target(body, subresource)
        return await self._write("PATCH", target, manager, body=body, content_type=_APPLY, force=True)

    def _target(self, body: Object, subresource: str | None = None) -> Target:
        metadata = body["metadata"]
        return Target(self._resource(body), metadata.get("namespace"), metadata["name"], subresource)

    async def _write(
        self,
        method: str,
        target: Target,
        manager: str | None = None,
        *,
        body: Object | _Objects,
        content_type: str = "application/json",
        force: bool = False,
    ) -> Object:
        """All writes go through here. Returns the resulting object, or the Status of its deletion."""
        path = target.resource.path(target.namespace, None if method == "POST" else target.name, target.subresource)
        query = {"fieldManager": manager} if manager is not None else {}
        if force:
            query["force"] = "true"
        try:
            return await self._request(method, path, query=query, body=body, content_type=content_type)
        except ApiError as error:
            error.written_kind = target.resource.kind
            raise

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | _Objects | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send a request, and repeat it as long as the API server asks for that (Retry-After), as client-go does."""
        retry_seconds_left = RETRY_AFTER_SECONDS
        while True:
            try:
                return await self._transport.send(method, path, query or {}, body, content_type)
            except ApiError as error:
                if error.retry_after is None or retry_seconds_left <= 0:
                    raise
                pause = min(max(error.retry_after, 0.1), retry_seconds_left)
            retry_seconds_left -= pause
            await asyncio.sleep(pause)
