"""The edge to the Kubernetes API: a few verbs over the official asyncio client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.base import API_VERSION
from finetune_api.crd import EVALUATION, FINE_TUNE_CLASS, FINE_TUNE_JOB, MODEL_DEPLOYMENT

Object = dict[str, Any]

FIELD_MANAGER = "finetune-operator"
REQUEST_TIMEOUT_SECONDS = 30
PAGE_SIZE = 500


@dataclass(frozen=True)
class Resource:
    """A REST resource of the API server."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or its subresource."""
        parts = ["/api" if "/" not in self.api_version else "/apis", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


FINE_TUNE_CLASSES = Resource(API_VERSION, FINE_TUNE_CLASS.name, FINE_TUNE_CLASS.plural, namespaced=False)
FINE_TUNE_JOBS = Resource(API_VERSION, FINE_TUNE_JOB.name, FINE_TUNE_JOB.plural)
EVALUATIONS = Resource(API_VERSION, EVALUATION.name, EVALUATION.plural)
MODEL_DEPLOYMENTS = Resource(API_VERSION, MODEL_DEPLOYMENT.name, MODEL_DEPLOYMENT.plural)
JOBS = Resource("batch/v1", "Job", "jobs")
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SERVICES = Resource("v1", "Service", "services")
EVENTS = Resource("v1", "Event", "events")
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)

RESOURCES = {
    (resource.api_version, resource.kind): resource
    for resource in (
        FINE_TUNE_CLASSES,
        FINE_TUNE_JOBS,
        EVALUATIONS,
        MODEL_DEPLOYMENTS,
        JOBS,
        PODS,
        CONFIG_MAPS,
        SERVICES,
        EVENTS,
        DEPLOYMENTS,
    )
}


class ApiError(Exception):
    """The API server refused or failed; `status` is the HTTP code (0: no answer)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Kube:
    """Requests to one API server. Every request has a deadline; errors are ApiError."""

    def __init__(self, api: Any) -> None:
        self._api = api

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, read live; None when there is none."""
        try:
            return await self._request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Every object of a namespace (or of the cluster) with these labels, page by page."""
        query = {"limit": str(PAGE_SIZE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Object] = []
        while True:
            page = await self._request("GET", resource.path(namespace), query=query)
            # Items of a list carry neither.
            kinds = {"apiVersion": resource.api_version, "kind": resource.kind}
            items += [{**item, **kinds} for item in page.get("items", [])]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    async def apply(self, body: Object) -> Object:
        """Server-side apply under our field manager."""
        return await self._apply(body, None)

    async def apply_status(self, body: Object) -> Object:
        """Server-side apply of the status subresource; `metadata.uid` guards against a successor of the same name."""
        return await self._apply(body, "status")

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str | None) -> None:
        """Delete exactly this object and, in the background, what it owns. Gone or replaced already: fine."""
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", resource.path(namespace, name), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST an object."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("POST", resource.path(namespace), query=query, body=body)

    async def create_once(self, body: Object) -> None:
        """Create a child under its deterministic name; one that exists already is this one, written before a crash."""
        resource = RESOURCES[body["apiVersion"], body["kind"]]
        try:
            await self.create(resource, body["metadata"]["namespace"], body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def merge(self, body: Object) -> None:
        """Set the given fields of an object and leave all others; it is created when it does not exist."""
        resource = RESOURCES[body["apiVersion"], body["kind"]]
        metadata = body["metadata"]
        path, query = resource.path(metadata["namespace"], metadata["name"]), {"fieldManager": FIELD_MANAGER}
        try:
            await self._request("PATCH", path, query=query, body=body, content_type="application/merge-patch+json")
        except ApiError as error:
            if error.status != 404:
                raise
            await self.create(resource, metadata["namespace"], body)

    async def _apply(self, body: Object, subresource: str | None) -> Object:
        resource = RESOURCES[body["apiVersion"], body["kind"]]
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        import aiohttp
        from kubernetes.aio.client.exceptions import ApiException

        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=REQUEST_TIMEOUT_SECONDS)
            data = await response.read()
        except ApiException as error:
            raise ApiError(error.status or 0, str(error.reason), str(error.body)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error)) from error
        if not 200 <= response.status <= 299:
            raise _api_error(response.status, data)
        answer = json.loads(data)
        assert isinstance(answer, dict)
        return answer


def _api_error(status: int, data: bytes) -> ApiError:
    try:
        answer = json.loads(data)
        return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(status, "", data[:500].decode(errors="replace"))
