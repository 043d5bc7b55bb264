"""The client of the Kubernetes API: a few verbs over the official asyncio client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from finetune_operator.kube.errors import NAME_CONFLICT, ApiError
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import CONDITIONS_MANAGER, FIELD_MANAGER, RESOURCES, SERVICES, Object, Resource
from finetune_operator.kube.transport import REQUEST_TIMEOUT_SECONDS, Answered, Transport

_Objects = list[Object]

STORAGE_FINALIZER_MANAGER = "finetune-operator-storage"
"""Writes metadata.finalizers and nothing else, so that holding and releasing never touches a spec."""
RETRY_AFTER_SECONDS = 20.0
"""How long one request is kept back when the API server asks for it (429 and 5xx with Retry-After)."""
PAGE_SIZE = 500
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Page:
    """A part of a list, which is as it was at one resourceVersion."""

    items: list[Object]
    version: str
    begins: bool


@dataclass(frozen=True)
class About:
    """What a write is about."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str | None = None


class Kube:
    """Requests to one API server. Every request has a deadline; errors are ApiError."""

    def __init__(
        self,
        api: Any,
        request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        answered: Answered | None = None,
        resources: Iterable[Resource] = RESOURCES,
        field_manager: str = FIELD_MANAGER,
    ) -> None:
        self._transport = Transport(api, request_timeout_seconds, answered)
        self._field_manager = field_manager
        self._resources = {(resource.api_version, resource.kind): resource for resource in resources}

    @property
    def live(self) -> Reader:
        """Reads what is so now, whatever is remembered."""
        return self

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None when there is none."""
        return await self._get(resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> list[Object]:
        """The objects of a namespace (or of the cluster) with these labels and fields: all, page by page, or `most`."""
        return (await self._list(resource, namespace, labels, fields=fields, most=most)).items

    def settled(self, resource: Resource, parent: Object) -> None:
        """Nothing is to be done about a finished object as it is: nobody has to remember it."""

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
        most: int | None = None,
    ) -> Page:
        selectors = {
            name: ",".join(f"{key}={value}" for key, value in selector.items())
            for name, selector in (("labelSelector", labels), ("fieldSelector", fields))
            if selector
        }
        found, version = list[Object](), ""
        async with aclosing(self.pages(resource, selectors, namespace=namespace, size=most or PAGE_SIZE)) as pages:
            async for page in pages:
                found = [*([] if page.begins else found), *page.items]
                version = page.version
                if most is not None:
                    break
        return Page(found, version, begins=True)

    async def pages(
        self,
        resource: Resource,
        selectors: Mapping[str, str],
        *,
        namespace: str | None = None,
        size: int = PAGE_SIZE,
    ) -> AsyncGenerator[Page]:
        """The objects of one moment, page by page; what came before a page that `begins` does not count."""
        # Items of a list carry neither.
        kinds = {"apiVersion": resource.api_version, "kind": resource.kind}
        query, begins = {"limit": str(size), **selectors}, True
        while True:
            try:
                page = await self._request("GET", resource.path(namespace), query=query)
            except ApiError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                # The pages' common moment is compacted away: everything anew, in one piece, which can't expire.
                query, begins = dict(selectors), True
                continue
            meta = page.get("metadata", {})
            items = [{**item, **kinds} for item in page.get("items", [])]
            yield Page(items, str(meta.get("resourceVersion", "")), begins=begins)
            if not meta.get("continue"):
                return
            query, begins = {**query, "continue": meta["continue"]}, False

    def watch(
        self, resource: Resource, selectors: Mapping[str, str], version: str, seconds: float
    ) -> AsyncGenerator[Object | None]:
        """What changes after this resourceVersion, for so many seconds: None once it is open, then event by event."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, **selectors}
        return self._transport.lines(resource.path(None), {**query, "timeoutSeconds": f"{math.ceil(seconds)}"}, seconds)

    async def token_issuer(self) -> str | None:
        """Who signs the tokens of service accounts; None where it may not be asked, or nobody answers."""
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

        `metadata.resourceVersion` guards against what changed since the object was read, a successor of the same name
        above all (409). `metadata.uid` would not: the API server drops it before it compares.
        """
        return await self._apply(body, "status")

    async def replace_status(self, body: Object) -> Object:
        """Put this status in the place of the stored one, whoever wrote what of it. Raises ApiError 409 as above."""
        metadata = body["metadata"]
        changes = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/status", "value": body["status"]},
        ]
        about = self._about(body, "status")
        return await self._write("PATCH", about, FIELD_MANAGER, body=changes, content_type=_JSON_PATCH)

    async def apply_conditions(self, body: Object) -> Object:
        """The same for nothing but conditions: every other field stays as whoever wrote it left it."""
        return await self._apply(body, "status", CONDITIONS_MANAGER)

    async def hold(self, parent: Object, finalizer: str) -> Object:
        """Add a finalizer to the object as it was read. Raises ApiError 409 when it has changed since."""
        return await self._write_finalizers(parent, [*parent["metadata"].get("finalizers", ()), finalizer])

    async def release(self, parent: Object, finalizer: str) -> Object:
        """Take every entry of this finalizer away, whoever put it there, and no other; returns what is left.

        Raises ApiError 409 when the object is not what was read, or holds the finalizer still.
        """
        others = [name for name in parent["metadata"].get("finalizers", ()) if name != finalizer]
        left = await self._write_finalizers(parent, others)
        if finalizer in left["metadata"].get("finalizers", ()):
            raise ApiError(409, "FinalizerStays", f"{finalizer} stands on {parent['metadata']['name']!r} still")
        return left

    async def _write_finalizers(self, parent: Object, finalizers: Sequence[str]) -> Object:
        """By a patch: an entry that somebody else wrote (a restored backup) is no field of ours to apply."""
        read = parent["metadata"]
        metadata = {name: read[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        metadata["finalizers"] = list(finalizers)
        body = {**{name: parent[name] for name in ("apiVersion", "kind")}, "metadata": metadata}
        about = self._about(body)
        return await self._write("PATCH", about, STORAGE_FINALIZER_MANAGER, body=body, content_type=_MERGE_PATCH)

    async def replace(self, body: Object) -> Object:
        """PUT an object that was read before. Raises ApiError 409 when somebody wrote it since (resourceVersion)."""
        return await self._write("PUT", self._about(body), FIELD_MANAGER, body=body)

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str | None, *, dependents_first: bool = False
    ) -> None:
        """Delete exactly this object and, in the background, what it owns. Gone or replaced already: fine.

        `dependents_first`: what it owns goes also where a finalizer keeps the object itself.
        """
        body: Object = {"propagationPolicy": "Foreground" if dependents_first else "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._write("DELETE", About(resource, namespace, name), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST an object."""
        about = About(resource, namespace, body.get("metadata", {}).get("name", ""))
        return await self._write("POST", about, self._field_manager, body=body)

    async def create_once(self, body: Object) -> None:
        """Create an object under its deterministic name; one that exists already is this one, written before a crash.

        Raises ApiError 409 NameConflict where another controller's, or nobody's, has the name.
        """
        resource, metadata = self._resource(body), body["metadata"]
        try:
            await self.create(resource, metadata["namespace"], body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            if not await self._is_there(resource, body):
                message = (
                    f"A {body['kind']} named {metadata['name']!r} exists already and is not of this object. Delete it."
                )
                raise ApiError(409, NAME_CONFLICT, message) from error

    def _resource(self, body: Object) -> Resource:
        return self._resources[body["apiVersion"], body["kind"]]

    async def _is_there(self, resource: Resource, body: Object) -> bool:
        """Whether the object of this name has the same controller (or is gone by now, to be made at the next look)."""
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
        """Set the given fields of an object and leave all others; it is created when it does not exist.

        Given a resourceVersion: only while it is what was read (ApiError 404 or 409).
        """
        try:
            await self.merge_existing(body)
        except ApiError as error:
            if error.status != 404 or "resourceVersion" in body["metadata"]:
                raise
            await self.create(self._resource(body), body["metadata"]["namespace"], body)

    async def merge_existing(self, body: Object) -> None:
        """Set the given fields of an object that is there, and leave all others. Raises ApiError 404."""
        await self._write("PATCH", self._about(body), self._field_manager, body=body, content_type=_MERGE_PATCH)

    async def _apply(self, body: Object, subresource: str | None, manager: str = FIELD_MANAGER) -> Object:
        about = self._about(body, subresource)
        return await self._write("PATCH", about, manager, body=body, content_type=_APPLY, force=True)

    def _about(self, body: Object, subresource: str | None = None) -> About:
        metadata = body["metadata"]
        return About(self._resource(body), metadata.get("namespace"), metadata["name"], subresource)

    async def _write(
        self,
        method: str,
        about: About,
        manager: str | None = None,
        *,
        body: Object | _Objects,
        content_type: str = "application/json",
        force: bool = False,
    ) -> Object:
        """Every write goes through here. The answer is the object as it is then, or the Status of its deletion."""
        path = about.resource.path(about.namespace, None if method == "POST" else about.name, about.subresource)
        query = {"fieldManager": manager} if manager is not None else {}
        if force:
            query["force"] = "true"
        return await self._request(method, path, query=query, body=body, content_type=content_type)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | _Objects | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request; sent again later while the API server asks for that (Retry-After), as client-go does."""
        keep_back = RETRY_AFTER_SECONDS
        while True:
            try:
                return await self._transport.send(method, path, query or {}, body, content_type)
            except ApiError as error:
                if error.retry_after is None or keep_back <= 0:
                    raise
                pause = min(max(error.retry_after, 0.1), keep_back)
            keep_back -= pause
            await asyncio.sleep(pause)
