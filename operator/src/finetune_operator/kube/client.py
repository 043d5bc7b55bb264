"""The client of the Kubernetes API: a few verbs over the official asyncio client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from finetune_operator.kube.errors import NAME_CONFLICT, ApiError
from finetune_operator.kube.resources import CONDITIONS_MANAGER, FIELD_MANAGER, RESOURCES, SERVICES, Object, Resource

Kept = TypeVar("Kept")
_Listed = list[Kept]

STORAGE_FINALIZER_MANAGER = "finetune-operator-storage"
"""Writes metadata.finalizers and nothing else, so that holding and releasing never touches a spec."""
REQUEST_TIMEOUT_SECONDS = 30.0
RETRY_AFTER_SECONDS = 20.0
"""How long one request is kept back when the API server asks for it (429 and 5xx with Retry-After)."""
PAGE_SIZE = 500
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"

Answered = Callable[[str, str, int, float], None]
"""Is told of every request that was sent: method, path, HTTP code (0: no answer), seconds."""


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
        self._api = api
        self._field_manager = field_manager
        self._resources = {(resource.api_version, resource.kind): resource for resource in resources}
        self._request_timeout_seconds = request_timeout_seconds
        self._answered = answered

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, read live; None when there is none."""
        try:
            return await self._request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

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
        # Items of a list carry neither.
        kinds = {"apiVersion": resource.api_version, "kind": resource.kind}
        return await self._listed(
            resource, namespace, lambda item: {**item, **kinds}, labels=labels, fields=fields, most=most
        )

    async def names(self, resource: Resource) -> Sequence[tuple[str, str]]:
        """Namespace and name of every object of the cluster; never more than a page of the objects is in memory."""
        return await self._listed(
            resource, None, lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        )

    async def _listed(
        self,
        resource: Resource,
        namespace: str | None,
        kept: Callable[[Object], Kept],
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> _Listed[Kept]:
        """What is kept of each object, page by page."""
        query = {"limit": str(most or PAGE_SIZE)}
        for name, selector in (("labelSelector", labels), ("fieldSelector", fields)):
            if selector:
                query[name] = ",".join(f"{key}={value}" for key, value in selector.items())
        items: list[Kept] = []
        while True:
            try:
                page = await self._request("GET", resource.path(namespace), query=query)
            except ApiError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                # The pages' common moment is compacted away: everything anew, in one piece, which can't expire.
                items.clear()
                del query["continue"], query["limit"]
                continue
            items += [kept(item) for item in page.get("items", [])]
            token = page.get("metadata", {}).get("continue")
            if not token or most is not None:
                return items
            query["continue"] = token

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
        resource, metadata = self._resource(body), body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], "status")
        changes = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/status", "value": body["status"]},
        ]
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", path, query=query, body=changes, content_type=_JSON_PATCH)

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
        resource, read = self._resource(parent), parent["metadata"]
        metadata = {name: read[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        metadata["finalizers"] = list(finalizers)
        path, query = resource.path(read["namespace"], read["name"]), {"fieldManager": STORAGE_FINALIZER_MANAGER}
        body = {**{name: parent[name] for name in ("apiVersion", "kind")}, "metadata": metadata}
        return await self._request("PATCH", path, query=query, body=body, content_type=_MERGE_PATCH)

    async def replace(self, body: Object) -> Object:
        """PUT an object that was read before. Raises ApiError 409 when somebody wrote it since (resourceVersion)."""
        resource = self._resource(body)
        path = resource.path(body["metadata"]["namespace"], body["metadata"]["name"])
        return await self._request("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=body)

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
            await self._request("DELETE", resource.path(namespace, name), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST an object."""
        query = {"fieldManager": self._field_manager}
        return await self._request("POST", resource.path(namespace), query=query, body=body)

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
        held = {owner["uid"] for owner in found[0]["metadata"].get("ownerReferences", ()) if owner.get("controller")}
        return wanted == held

    async def merge(self, body: Object) -> None:
        """Set the given fields of an object and leave all others; it is created when it does not exist.

        Given a resourceVersion: only while it is what was read (ApiError 404 or 409).
        """
        resource, metadata = self._resource(body), body["metadata"]
        try:
            await self.merge_existing(body)
        except ApiError as error:
            if error.status != 404 or "resourceVersion" in metadata:
                raise
            await self.create(resource, metadata["namespace"], body)

    async def merge_existing(self, body: Object) -> None:
        """Set the given fields of an object that is there, and leave all others. Raises ApiError 404."""
        metadata = body["metadata"]
        path = self._resource(body).path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": self._field_manager}
        await self._request("PATCH", path, query=query, body=body, content_type=_MERGE_PATCH)

    async def _apply(self, body: Object, subresource: str | None, manager: str = FIELD_MANAGER) -> Object:
        resource = self._resource(body)
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": manager, "force": "true"}
        return await self._request("PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | _Listed[Object] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request; sent again later while the API server asks for that (Retry-After), as client-go does."""
        keep_back = RETRY_AFTER_SECONDS
        while True:
            try:
                return await self._send(method, path, query or {}, body, content_type)
            except ApiError as error:
                if error.retry_after is None or keep_back <= 0:
                    raise
                pause = min(max(error.retry_after, 0.1), keep_back)
            keep_back -= pause
            await asyncio.sleep(pause)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | _Listed[Object] | None, content_type: str
    ) -> Object:
        import aiohttp
        from kubernetes.aio.client.exceptions import ApiException

        started, code = time.monotonic(), 0
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=self._request_timeout_seconds)
            data = await response.read()
            code = response.status
        except ApiException as error:
            raise ApiError(error.status or 0, str(error.reason), str(error.body)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error) or f"no answer to {method} {path}") from error
        finally:
            if self._answered is not None:
                self._answered(method, path, code, time.monotonic() - started)
        if not 200 <= code <= 299:
            raise _api_error(code, data, response.headers.get("Retry-After"))
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise ApiError(0, "InvalidAnswer", f"{method} {path} was answered with {data[:100]!r}") from error
        assert isinstance(answer, dict)
        return answer


def _api_error(status: int, data: bytes, retry_after: str | None) -> ApiError:
    """The error of an answer. Retry-After is in seconds; every write of ours may be sent again."""
    seconds = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        answer = json.loads(data)
        return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")), seconds)
    except (ValueError, AttributeError):
        return ApiError(status, "", data[:500].decode(errors="replace"), seconds)
