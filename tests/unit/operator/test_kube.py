"""The edge to the API server: which request each verb is."""

from __future__ import annotations

import pytest

from finetune_operator.kube import (
    CONFIG_MAPS,
    FINE_TUNE_CLASSES,
    FINE_TUNE_JOBS,
    JOBS,
    PODS,
    ApiError,
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
def test_paths(resource: Resource, namespace: str | None, name: str | None, subresource: str | None, path: str) -> None:
    assert resource.path(namespace, name, subresource) == path


async def test_an_object_that_is_not_there_is_none() -> None:
    assert await FakeKube().get(JOBS, "team-a", "a") is None
    assert await FakeKube({f"GET {COLLECTION}/a": JOB}).get(JOBS, "team-a", "a") == JOB
    with pytest.raises(ApiError, match="403"):
        await FakeKube({f"GET {COLLECTION}/a": REFUSED}).get(JOBS, "team-a", "a")


async def test_lists_are_read_page_by_page_and_items_say_what_they_are() -> None:
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


async def test_apply_is_server_side_apply_under_our_field_manager() -> None:
    kube = FakeKube()
    await kube.apply(JOB)
    await kube.apply_status(JOB)
    for request, path in zip(kube.requests, [f"{COLLECTION}/a", f"{COLLECTION}/a/status"], strict=True):
        assert request.line == f"PATCH {path}"
        assert request.content_type == "application/apply-patch+yaml"
        assert request.query == {"fieldManager": "finetune-operator", "force": "true"}


async def test_creating_once_takes_what_exists_for_its_own() -> None:
    kube = FakeKube({f"POST {COLLECTION}": EXISTS})
    await kube.create_once(JOB)
    assert kube.writes == [f"POST {COLLECTION}"]
    for error in (REFUSED, CONFLICT):
        with pytest.raises(ApiError, match=error.reason):
            await FakeKube({f"POST {COLLECTION}": error}).create_once(JOB)


async def test_deletion_is_of_exactly_this_object() -> None:
    kube = FakeKube()
    await kube.delete(JOBS, "team-a", "a", "uid-1")
    await kube.delete(CONFIG_MAPS, "team-a", "a", None)
    of_job, of_config_map = (request.body for request in kube.requests)
    assert of_job == {"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}
    assert of_config_map == {"propagationPolicy": "Background"}


@pytest.mark.parametrize(
    ("error", "raised"), [(ApiError(404, "NotFound", ""), False), (CONFLICT, False), (REFUSED, True)]
)
async def test_deleting_what_is_gone_or_replaced_is_fine(error: ApiError, raised: bool) -> None:
    kube = FakeKube({f"DELETE {COLLECTION}/a": error})
    if raised:
        with pytest.raises(ApiError):
            await kube.delete(JOBS, "team-a", "a", "uid-1")
    else:
        await kube.delete(JOBS, "team-a", "a", "uid-1")
