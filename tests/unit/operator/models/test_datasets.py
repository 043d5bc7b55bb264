"""datasetRef: the revision that a Dataset has, or what is waited for and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_api.dataset_reference import DatasetRef, PinnedRevision
from finetune_operator.core.conditions import Readiness, first_missing, progressing, stalled
from finetune_operator.core.references import ObjectKey, dataset_references
from finetune_operator.kube.resources import DATASETS
from finetune_operator.models.observe import resolve_dataset, resolve_datasets
from tests.unit.operator.dataset_states import DATASET, built_status, dataset_spec, dataset_status, revision
from tests.unit.operator.fake_kube import FakeKube

TEST = DatasetRef(name="tickets", split="test")


async def resolved(
    status: DatasetStatus | dict[str, Any] | None, reference: DatasetRef = TEST, **spec: Any
) -> PinnedRevision | Readiness:
    """What the reference stands for; a status of None: there is no Dataset."""
    answers: dict[str, Any] = {}
    if status is not None:
        wire = status.to_wire() if isinstance(status, DatasetStatus) else status
        body = {
            "metadata": {"name": "tickets", "uid": DATASET.uid},
            "spec": dataset_spec(**spec).to_wire(),
            "status": wire,
        }
        answers[f"GET {DATASETS.path('team-a', 'tickets')}"] = body
    return await resolve_dataset(FakeKube(answers), "team-a", reference)


async def test_it_is_the_committed_revision_with_its_digest_and_the_datasets_uid() -> None:
    found = await resolved(built_status())
    assert found == PinnedRevision(
        name="tickets", uid=DATASET.uid, split="test", digest="sha256:aa", uri=revision().uri
    )
    assert found.file_uri == f"{revision().uri}/test.jsonl"


@pytest.mark.parametrize(
    ("status", "reason", "is_stalled", "told"),
    [
        (None, Reason.REFERENCE_NOT_FOUND, True, "Dataset 'tickets' does not exist in namespace 'team-a'. Create it."),
        ({}, Reason.WAITING_FOR_DATASET, False, "Dataset 'tickets' is not complete: its run '1' has not begun."),
        (built_status(run_id="0"), Reason.WAITING_FOR_DATASET, False, "its run '1' has not begun."),
        (dataset_status(), Reason.WAITING_FOR_DATASET, False, "Dataset 'tickets' is not complete (Building)."),
        (
            built_status(phase="Failed", revision=None),
            Reason.WAITING_FOR_DATASET,
            True,
            "Dataset 'tickets' failed: see `kubectl describe ftds tickets`. Waiting for a new run of it.",
        ),
        (
            built_status(phase="Cancelled", revision=None),
            Reason.WAITING_FOR_DATASET,
            True,
            "Dataset 'tickets' was cancelled. To build it, set its spec.cancel to false and change its spec.runId.",
        ),
        ({"phase": []}, Reason.WAITING_FOR_DATASET, True, "can't be read by this version of the operator"),
    ],
    ids=["none", "new", "another run", "building", "failed", "cancelled", "another version"],
)
async def test_what_it_waits_for_is_reported_with_what_to_do(
    status: Any, reason: Reason, is_stalled: bool, told: str
) -> None:
    found = await resolved(status)
    assert isinstance(found, Readiness)
    assert (found.reason, found.stalled) == (reason, is_stalled)
    assert told in found.message


async def test_a_split_that_the_revision_does_not_have_is_reported_with_those_that_it_has() -> None:
    found = await resolved(built_status(), DatasetRef(name="tickets", split="validation"))
    assert isinstance(found, Readiness)
    assert (found.reason, found.stalled) == (Reason.REFERENCE_NOT_FOUND, True)
    assert found.message.startswith("Dataset 'tickets' has no validation split: its revision has training and test.")


async def test_two_splits_of_a_dataset_are_of_one_revision_even_while_it_gets_another() -> None:
    first, second = built_status(), built_status(revision=revision(digest="sha256:ff"))
    answers: list[Any] = [
        {"metadata": {"name": "tickets", "uid": DATASET.uid}, "spec": dataset_spec().to_wire(), "status": one.to_wire()}
        for one in (first, second)
    ]
    kube = FakeKube({f"GET {DATASETS.path('team-a', 'tickets')}": answers})
    wanted = {"training": DatasetRef(name="tickets", split="training"), "validation": TEST}
    found = await resolve_datasets(kube, "team-a", wanted)
    assert [one.digest for one in found.values() if isinstance(one, PinnedRevision)] == ["sha256:aa", "sha256:aa"]
    assert len(kube.requests) == 1


def test_of_two_datasets_the_one_that_needs_a_change_is_reported() -> None:
    builds = progressing(Reason.WAITING_FOR_DATASET, "It builds.")
    failed = stalled(Reason.WAITING_FOR_DATASET, "It failed.")
    assert first_missing([builds, failed]) is failed
    assert first_missing([builds]) is builds
    assert first_missing([]) is None


def test_an_object_refers_to_the_datasets_of_its_own_namespace() -> None:
    body = {"metadata": {"namespace": "team-a"}}
    sources = {"datasetRef": {"name": "tickets", "split": "test"}}, {"uri": "s3://data/a"}, None
    assert dataset_references(body, *sources) == {ObjectKey("Dataset", "team-a", "tickets")}
