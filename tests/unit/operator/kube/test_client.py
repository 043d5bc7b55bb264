"""The client of the API server: the request that each method sends, and how it handles errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.kube.client import RETRY_AFTER_SECONDS, Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import (
    CONFIG_MAPS,
    FINE_TUNE_CLASSES,
    FINE_TUNE_JOBS,
    JOBS,
    PODS,
    Object,
    Resource,
)
from tests.unit.operator.fake_kube import FakeKube

COLLECTION = "/apis/batch/v1/namespaces/team-a/jobs"
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "team-a"}}
EXISTS = ApiError(409, "AlreadyExists", 'jobs.batch "a" already exists')
CONFLICT = ApiError(409, "Conflict", "the UID in the precondition does not match")
REFUSED = ApiError(403, "Forbidden", "exceeded quota")


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        (PODS, "team-a", "p", None, "/api/v1/namespaces/team-a/pods/p"),
        (PODS, None, None, None, "/api/v1/pods"),
        (JOBS, "team-a", None, None, COLLECTION),
        (FINE_TUNE_CLASSES, None, "cpu", None, "/apis/finetune.dev/v1alpha1/finetuneclasses/cpu"),
        (
            FINE_TUNE_JOBS,
            "team-a",
            "router",
            "status",
            "/apis/finetune.dev/v1alpha1/namespaces/team-a/finetunejobs/router/status",
        ),
    ],
)
def test_a_resource_has_the_url_path_of_the_kubernetes_api(
    resource: Resource, namespace: str | None, name: str | None, subresource: str | None, path: str
) -> None:
    assert resource.path(namespace, name, subresource) == path


async def test_get_returns_none_for_404_only() -> None:
    assert await FakeKube().get(JOBS, "team-a", "a") is None
    assert await FakeKube({f"GET {COLLECTION}/a": JOB}).get(JOBS, "team-a", "a") == JOB
    with pytest.raises(ApiError, match="403"):
        await FakeKube({f"GET {COLLECTION}/a": REFUSED}).get(JOBS, "team-a", "a")


async def test_lists_are_paged_and_items_get_their_api_version_and_kind() -> None:
    pages: list[Object] = [
        {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "token"}},
        {"items": [{"metadata": {"name": "b"}}], "metadata": {}},
    ]
    kube = FakeKube({f"GET {COLLECTION}": pages})
    found = await kube.list(JOBS, "team-a", {"a": "1", "b": "2"})
    assert [(item["kind"], item["metadata"]["name"]) for item in found] == [("Job", "a"), ("Job", "b")]
    first, second = kube.requests
    assert (first.query["labelSelector"], first.query["limit"]) == ("a=1,b=2", "500")
    assert second.query["continue"] == "token"


async def test_pages_of_the_whole_cluster_are_yielded_one_by_one() -> None:
    path = "GET /apis/finetune.dev/v1alpha1/finetunejobs"
    first = {
        "items": [{"metadata": {"namespace": "team-a", "name": "a"}, "spec": {}}],
        "metadata": {"continue": "more", "resourceVersion": "7"},
    }
    last = {"items": [{"metadata": {"namespace": "team-b", "name": "b"}}], "metadata": {"resourceVersion": "7"}}
    kube = FakeKube({path: [first, last]})
    pages = [page async for page in kube.pages(FINE_TUNE_JOBS, {})]
    assert [[item["metadata"]["name"] for item in page.items] for page in pages] == [["a"], ["b"]]
    assert [(page.version, page.is_first) for page in pages] == [("7", True), ("7", False)]
    assert [request.query.get("continue") for request in kube.requests] == [None, "more"]


async def test_apply_is_server_side_apply_under_our_field_manager() -> None:
    kube = FakeKube()
    await kube.apply(JOB)
    await kube.apply_status(JOB)
    for request, path in zip(kube.requests, [f"{COLLECTION}/a", f"{COLLECTION}/a/status"], strict=True):
        assert request.line == f"PATCH {path}"
        assert request.content_type == "application/apply-patch+yaml"
        assert request.query == {"fieldManager": "finetune-operator", "force": "true"}


async def test_create_once_accepts_an_existing_object_of_ours() -> None:
    kube = FakeKube({f"POST {COLLECTION}": EXISTS})
    assert await kube.create_once(JOB) is False
    assert kube.writes == [f"POST {COLLECTION}"]
    assert await FakeKube().create_once(JOB) is True
    for error in (REFUSED, CONFLICT):
        with pytest.raises(ApiError, match=error.reason):
            await FakeKube({f"POST {COLLECTION}": error}).create_once(JOB)


async def test_delete_sends_the_uid_precondition_and_the_propagation_policy() -> None:
    kube = FakeKube()
    await kube.delete(JOBS, "team-a", "a", "uid-1")
    await kube.delete(CONFIG_MAPS, "team-a", "a", None)
    await kube.delete(JOBS, "team-a", "a", None, dependents_first=True)
    of_job, of_config_map, of_held_job = (request.body for request in kube.requests)
    assert of_job == {"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}
    assert of_config_map == {"propagationPolicy": "Background"}
    assert of_held_job == {"propagationPolicy": "Foreground"}


DENIED = 'admission webhook "keep.example.com" denied the request: it runs'


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ApiError(404, "NotFound", ""), False),
        (CONFLICT, False),
        (REFUSED, True),
        (ApiError(404, "NotFound", DENIED), True),
        (ApiError(409, "Conflict", DENIED), True),
    ],
    ids=["gone", "replaced", "refused", "denied with 404", "denied with 409"],
)
async def test_deleting_a_gone_or_replaced_object_is_no_error(error: ApiError, raised: bool) -> None:
    kube = FakeKube({f"DELETE {COLLECTION}/a": error})
    if raised:
        with pytest.raises(ApiError):
            await kube.delete(JOBS, "team-a", "a", "uid-1")
    else:
        await kube.delete(JOBS, "team-a", "a", "uid-1")


async def test_an_expired_continue_token_starts_the_list_over_with_larger_pages_and_then_without() -> None:
    """Not with the token that the answer has: the watch would not tell what has changed on the earlier pages."""
    pages: Any = [
        {"items": [{"metadata": {"name": "gone"}}], "metadata": {"continue": "token"}},
        ApiError(410, "Expired", "The provided continue parameter is too old"),
        {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "token"}},
        ApiError(410, "Expired", "The provided continue parameter is too old"),
        {"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}], "metadata": {}},
    ]
    kube = FakeKube({f"GET {COLLECTION}": pages})
    found = await kube.list(JOBS, "team-a", {"a": "1"})
    assert [item["metadata"]["name"] for item in found] == ["a", "b"]
    assert [request.query.get("limit") for request in kube.requests] == ["500", "500", "5000", "5000", None]
    assert kube.requests[4].query == {"labelSelector": "a=1"}


async def test_410_on_the_first_page_of_a_list_is_an_error() -> None:
    with pytest.raises(ApiError, match="410"):
        await FakeKube({f"GET {COLLECTION}": ApiError(410, "Expired", "too old")}).list(JOBS, "team-a")


async def test_replace_is_a_put_with_the_resource_version_and_raises_a_conflict() -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader", "namespace": "system", "resourceVersion": "7"},
    }
    path = "/apis/coordination.k8s.io/v1/namespaces/system/leases/leader"
    kube = FakeKube()
    await kube.replace(lease)
    (request,) = kube.requests
    assert (request.line, request.body) == (f"PUT {path}", lease)
    with pytest.raises(ApiError, match="409"):
        await FakeKube({f"PUT {path}": CONFLICT}).replace(lease)


# Against a real HTTP server with scripted responses.

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def connected_to(handler: Handler, **options: Any) -> AsyncIterator[Kube]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with (
        TestServer(app) as server,
        ApiClient(Configuration(host=str(server.make_url("")).rstrip("/"))) as api,
    ):
        yield Kube(api, **options)


def status(code: int, reason: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "reason": reason, "message": "in its own words", "code": code}
    return web.json_response(body, status=code, headers=headers)


def answers(*responses: web.Response) -> Handler:
    """The responses one after the other, and then the last one again and again."""
    left = list(responses)

    async def answer(request: web.Request) -> web.StreamResponse:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


@pytest.mark.parametrize("code", [429, 503])
async def test_a_request_is_repeated_after_the_requested_pause(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = recorded_pauses(monkeypatch)
    busy = [status(code, "TooManyRequests", **{"Retry-After": seconds}) for seconds in ("1", "3")]
    async with connected_to(answers(*busy, web.json_response(JOB))) as kube:
        assert await kube.create(JOBS, "team-a", JOB) == JOB
    assert pauses == [1, 3]


async def test_the_pauses_of_one_request_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = recorded_pauses(monkeypatch)

    async def busy(request: web.Request) -> web.StreamResponse:
        return status(429, "TooManyRequests", **{"Retry-After": "8"})

    async with connected_to(busy) as kube:
        with pytest.raises(ApiError, match="429 TooManyRequests: in its own words") as raised:
            await kube.get(JOBS, "team-a", "a")
    assert pauses == [8, 8, RETRY_AFTER_SECONDS - 16]
    assert raised.value.retry_after == 8


def recorded_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client requests; they are not waited for."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        if seconds > 0:  # asyncio's own are not
            pauses.append(seconds)

    monkeypatch.setattr("finetune_operator.kube.client.asyncio.sleep", pause)
    return pauses


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.json_response({})


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs_up_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"kind": "Job", ')
    assert request.transport is not None
    request.transport.abort()
    return response


async def no_json(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>a proxy in between</html>")


@pytest.mark.parametrize("handler", [silent, hangs_up, hangs_up_in_the_middle, no_json])
async def test_a_missing_or_broken_response_is_an_api_error(handler: Handler) -> None:
    """The write may have been applied, so a retry must be harmless."""
    async with connected_to(handler, request_timeout_seconds=0.2) as kube:
        with pytest.raises(ApiError) as raised:
            await asyncio.wait_for(kube.create(JOBS, "team-a", JOB), 3)
    assert raised.value.status == 0
    assert raised.value.message


async def test_every_request_is_reported_to_the_observer_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_pauses(monkeypatch)
    seen: list[tuple[str, str, int]] = []

    def answered(method: str, path: str, code: int, seconds: float) -> None:
        assert seconds >= 0
        seen.append((method, path, code))

    busy = status(429, "TooManyRequests", **{"Retry-After": "1"})
    async with connected_to(
        answers(busy, web.json_response(JOB), status(409, "Conflict")), on_response=answered
    ) as kube:
        await kube.get(JOBS, "team-a", "a")
        await kube.delete(JOBS, "team-a", "a", "uid-1")
    async with connected_to(hangs_up, on_response=answered) as kube:
        with pytest.raises(ApiError):
            await kube.create(JOBS, "team-a", JOB)
    path = f"{COLLECTION}/a"
    assert seen == [("GET", path, 429), ("GET", path, 200), ("DELETE", path, 409), ("POST", COLLECTION, 0)]


# Watches against a real HTTP server.


def watch_of(*chunks: bytes, code: int = 200, stays: float = 0.0) -> Handler:
    """Responds with exactly these chunks and stays open for `stays` seconds after them."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        await asyncio.sleep(stays)
        return response

    return answer


async def watched(kube: Kube, seconds: float = 60.0) -> list[Object | None]:
    async with contextlib.aclosing(kube.watch(JOBS, {"labelSelector": "a=1"}, "7", seconds)) as lines:
        return [line async for line in lines]


async def test_a_watch_requests_bookmarks_and_changes_after_a_version() -> None:
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        return web.Response(text='{"type": "BOOKMARK"}\n')

    async with connected_to(answer) as kube:
        assert await watched(kube) == [None, {"type": "BOOKMARK"}]
    wanted = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "7", "timeoutSeconds": "60"}
    assert asked == [{**wanted, "labelSelector": "a=1"}]


async def test_events_of_any_size_are_read_from_chunks_cut_anywhere() -> None:
    """etcd's limit is 1.5 MiB; anyone who may label a ConfigMap could otherwise stop a watch for good."""
    large = json.dumps({"type": "ADDED", "object": {"data": "x" * 1_500_000}}).encode()
    text = b'{"type": "ADDED"}\n{"type": "MODI' + b'FIED"}\n' + large + b'\n{"type": "DELETED"}\n'
    chunks = [text[:20], text[20:30], text[30:200_000], text[200_000:]]
    async with connected_to(watch_of(*chunks, b'{"type": "half')) as kube:
        found = await watched(kube)
    assert [line["type"] for line in found if line] == ["ADDED", "MODIFIED", "ADDED", "DELETED"]


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (answers(status(410, "Expired")), 410),
        (watch_of(b'{"type": "ADDED"}\n', stays=5), 0),
        (hangs_up, 0),
        (hangs_up_in_the_middle, 0),
        (watch_of(b"<html>a proxy in between</html>\n"), 0),
    ],
    ids=["it is refused", "it falls silent", "it is cut off", "it is cut off in the middle", "it is no watch"],
)
async def test_a_watch_that_breaks_off_is_an_error(
    handler: Handler, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_operator.kube.transport.SILENCE_SECONDS", 0.2)
    async with connected_to(handler) as kube:
        with pytest.raises(ApiError) as raised:
            await asyncio.wait_for(watched(kube), 3)
    assert raised.value.status == code
