"""What is read of a deleted FineTuneJob."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.finetunejob.deletion.observe import observe
from finetune_operator.finetunejob.deletion.plan import FINALIZER, plan
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, JOBS, NAMESPACES, PODS
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.finetunejob.deletion.deletions import FOLDER, PROD, STATUS, deletion, removed, tried
from tests.unit.operator.states import (
    CLASS_WIRE,
    JOB_WIRE,
    NOW,
    OWNER,
    STORAGE_URI,
    merged,
)

# What is read.


PARENT: dict[str, Any] = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {
        "name": OWNER.name,
        "namespace": OWNER.namespace,
        "uid": OWNER.uid,
        "generation": 2,
        "finalizers": [FINALIZER],
        "deletionTimestamp": "2026-11-22T11:59:50Z",
    },
    "spec": {**JOB_WIRE, "className": "cpu"},
    "status": STATUS.to_wire(),
}


def kube_with(**answers: Any) -> FakeKube:
    class_path = f"GET {FINE_TUNE_CLASSES.path(None, 'cpu')}"
    spec = merged(CLASS_WIRE, {"reclaimPolicy": "Delete"})
    table: dict[str, Any] = {
        class_path: {"metadata": {"name": "cpu", "generation": 4, "uid": "u-cpu"}, "spec": spec},
        f"GET {JOBS.path('team-a')}": {"items": []},
        f"GET {PODS.path('team-a')}": {"items": []},
        f"GET {NAMESPACES.path(None, 'team-a')}": {"metadata": {"name": "team-a"}},
    }
    return FakeKube({**table, **answers})


async def test_everything_is_read_that_the_decision_needs() -> None:
    observed = await observe(kube_with(), PARENT, trainer_image=None)
    assert observed == deletion(generation=2, status=observed.status)
    assert observed.status.storage_uri == STORAGE_URI


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        ({"metadata": {"name": "team-a", "deletionTimestamp": "2026-11-22T11:59:50Z"}}, True),
        (ApiError(404, "NotFound", ""), True),
        (ApiError(403, "Forbidden", "may not get namespaces"), False),
    ],
    ids=["terminating", "gone", "may not know"],
)
async def test_a_namespace_ends_when_it_is_being_deleted_or_gone(answer: Any, ends: bool) -> None:
    kube = kube_with(**{f"GET {NAMESPACES.path(None, 'team-a')}": answer})
    assert (await observe(kube, PARENT, trainer_image=None)).namespace_ends is ends


@pytest.mark.parametrize(
    "strange",
    [
        {"phase": "Levitating"},
        {"startTime": "soon"},
        {"usage": 7, "history": [{"storageUri": f"{FOLDER}/0-0f3c2a91"}, 7]},
        {"usage": 7, "runId": "x" * 1025, "history": [{"storageUri": f"s3://models/{'x' * 1025}/team-a/router/0"}]},
        {
            "usage": 7,
            "storageUri": ["s3://models"],
            "storageFolders": [7, "s3://models", {"uri": FOLDER, "className": "cpu"}],
        },
        {
            "storageUri": "nonsense",
            "storageFolders": [
                {"uri": uri, "className": "cpu"}
                for uri in ("", "s3:///team-a/router", "s3://models/team-b/router", FOLDER)
            ],
        },
    ],
)
async def test_a_status_of_another_version_still_says_what_is_to_be_removed(strange: dict[str, Any]) -> None:
    """Also one that can't be read: nothing would tell of what stays."""
    broken = {**PARENT, "status": {**PARENT["status"], **strange}}
    observed = await observe(kube_with(), broken, trainer_image=None)
    assert observed.class_name == "cpu"
    assert removed(observed) == [FOLDER]


async def test_a_recorded_endpoint_of_a_status_that_can_not_be_read_keeps_nothing() -> None:
    folder = {"uri": FOLDER, "className": "cpu", "endpoint": ""}
    broken = {**PARENT, "status": {**PARENT["status"], "usage": 7, "storageFolders": [folder]}}
    observed = await observe(kube_with(), broken, trainer_image=None)
    assert not observed.status.more_storage_folders
    assert removed(observed) == [FOLDER]


@pytest.mark.parametrize("folder", [PROD, {"uri": PROD}, {"uri": PROD, "className": 7}])
async def test_a_folder_without_a_class_in_another_versions_status_stays_and_is_reported(folder: Any) -> None:
    broken = {**PARENT, "status": {**PARENT["status"], "storageFolders": [folder]}}
    observed = await observe(kube_with(), broken, trainer_image=None)
    assert removed(observed) == [FOLDER]
    left = plan(replace(observed, jobs=(tried(1, "Complete"),)), NOW).left_behind
    assert left is not None
    assert PROD in left.note.message


async def test_the_classes_of_all_runs_are_read_as_they_are_today() -> None:
    folders = [{"uri": PROD, "className": "prod"}, {"uri": FOLDER, "className": "cpu"}]
    parent = {**PARENT, "status": {**PARENT["status"], "storageFolders": folders}}
    item = {"metadata": {"name": "prod", "generation": 4, "uid": "u-prod"}, "spec": merged(CLASS_WIRE, {})}
    kube = kube_with(**{f"GET {FINE_TUNE_CLASSES.path(None, 'prod')}": item})
    observed = await observe(kube, parent, trainer_image=None)
    assert set(observed.other_classes) == {"prod"}
    assert removed(observed) == [FOLDER]


async def test_a_run_that_never_started_for_want_of_its_class_keeps_nothing_from_being_removed() -> None:
    status = {"runId": "2", "storageFolders": [{"uri": FOLDER, "className": "cpu"}]}
    parent = {**PARENT, "spec": {**JOB_WIRE, "className": "misspelt"}, "status": status}
    observed = await observe(kube_with(), parent, trainer_image=None)
    assert removed(observed) == [FOLDER]
