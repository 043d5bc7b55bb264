"""Which folders go with a deleted FineTuneJob: each by the class that wrote it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, StorageFolder
from finetune_api.pod_contracts.run import is_run_folder, run_folder
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import child_name
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.deletion.objects import delete_job
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.deletion.plan import plan
from finetune_operator.finetunejob.plan import plan as job_plan
from finetune_operator.finetunejob.storage_folders import FOLDERS_KEPT, with_folder
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.finetunejob.deletion.deletions import (
    DELETING,
    FOLDER,
    PROD,
    RECLAIMING,
    STATUS,
    deletion,
    named,
    removed,
    tried,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    OWNER,
    ago,
    job_spec,
    observed_job,
    resolved_class,
)


def wrote(uri: str, class_name: str) -> StorageFolder:
    return StorageFolder(uri=uri, class_name=class_name)


def moved(*folders: StorageFolder, **classes: ResolvedClass | Readiness) -> ObservedDeletion:
    """A job of the class "cpu", whose earlier runs had other classes."""
    status = STATUS.model_copy(update={"storage_folders": [*folders, wrote(FOLDER, "cpu")]})
    return deletion(status=status, other_classes=classes)


RETAINING = named("prod", storage={"prefix": "prod"})
FAR = named("prod", reclaimPolicy="Delete", storage={"endpoint": "https://far.example.com"})
AS_SOMEBODY_ELSE = named("prod", reclaimPolicy="Delete", storage={"credentialsSecretName": "theirs"})


def test_what_an_earlier_class_wants_retained_is_retained() -> None:
    observed = moved(wrote(PROD, "prod"), prod=RETAINING)
    assert removed(observed) == [FOLDER]
    done = replace(observed, jobs=(tried(1, "Complete"),))
    assert plan(done, NOW).left_behind is None, "that is as its class wants it"


def test_what_an_earlier_class_of_the_same_access_wants_deleted_is_deleted() -> None:
    observed = moved(wrote(PROD, "prod"), prod=RECLAIMING)
    assert removed(observed) == [FOLDER, PROD]
    assert removed(replace(observed, class_=resolved_class())) == [PROD], "though the newest class wants its retained"


@pytest.mark.parametrize(
    ("folder", "prod", "why"),
    [
        (PROD, CLASS_NOT_FOUND, "does not exist"),
        (PROD, FAR, "FineTuneClass 'prod' has another endpoint or other credentials than 'cpu'"),
        (PROD, AS_SOMEBODY_ELSE, "FineTuneClass 'prod' has another endpoint or other credentials than 'cpu'"),
        (FOLDER, RETAINING, "FineTuneClass 'prod', whose runs wrote there too, has reclaimPolicy Retain."),
        (FOLDER, FAR, "FineTuneClass 'prod' has another endpoint"),
    ],
    ids=["its class is gone", "elsewhere", "another key", "shared with one that retains", "of the same name elsewhere"],
)
def test_objects_that_the_class_can_not_or_must_not_remove_stay_and_are_reported(
    folder: str, prod: ResolvedClass | Readiness, why: str
) -> None:
    observed = moved(wrote(folder, "prod"), prod=prod)
    if folder != FOLDER:
        assert removed(observed) == [FOLDER]
    end = plan(replace(observed, jobs=(tried(1, "Complete"),)), NOW)
    assert end.release
    assert end.left_behind is not None
    assert f"was deleted, but not its objects in {folder}: " in end.left_behind.note.message
    assert why in end.left_behind.note.message


def test_what_an_earlier_class_wants_deleted_is_reported_where_the_newest_retains() -> None:
    end = plan(replace(moved(wrote(PROD, "prod"), prod=FAR), class_=resolved_class()), NOW)
    assert (end.release, end.plan.create) == (True, ())
    assert end.left_behind is not None
    assert PROD in end.left_behind.note.message
    assert FOLDER not in end.left_behind.note.message


@pytest.mark.parametrize("place", [FOLDER, "s3://models/finetune/team-a/another"], ids=["one place", "many places"])
def test_where_more_classes_wrote_than_are_remembered_nothing_is_removed(place: str) -> None:
    """One that is forgotten may be the one that retains: a place that one class deletes may hold its data too."""
    status = STATUS.model_copy(update={"storage_folders": [wrote(f"s3://old/{n}", "cpu") for n in range(FOLDERS_KEPT)]})
    if place == FOLDER:
        status = STATUS.model_copy(update={"storage_folders": [wrote(FOLDER, f"c{n}") for n in range(FOLDERS_KEPT)]})
    status = with_folder(status, f"{place}/run", "prod")
    assert (len(status.storage_folders), status.more_storage_folders) == (FOLDERS_KEPT, True)
    begun = decide_again(status)
    assert begun.more_storage_folders
    others = {f"c{number}": DELETING for number in range(FOLDERS_KEPT)}
    ends = plan(deletion(status=begun, other_classes=others), NOW)
    assert (ends.plan.create, ends.release) == ((), True)
    assert ends.left_behind is not None
    assert FOLDER in ends.left_behind.note.message


def decide_again(status: FineTuneJobStatus) -> FineTuneJobStatus:
    """Of the run that begins after this one."""
    over = status.model_copy(update={"phase": "Succeeded", "completion_time": ago(5)})
    return job_plan(observed_job(over, spec=job_spec(runId="2")), NOW).status


def test_objects_at_an_endpoint_that_the_class_no_longer_names_stay_and_are_reported() -> None:
    """The Job that removes would look elsewhere, find nothing, and be done."""
    before = StorageFolder(uri=FOLDER, class_name="cpu", endpoint="https://old.example.com")
    status = STATUS.model_copy(update={"storage_folders": [before]})
    end = plan(deletion(status=status), NOW)
    assert (end.release, end.plan.create) == (True, ())
    assert end.left_behind is not None
    message = end.left_behind.note.message
    assert f"{FOLDER}: It is at https://old.example.com, but FineTuneClass 'cpu' now has AWS." in message
    assert "aws s3 rm --recursive" in message
    assert "--include '*-0f3c2a91/*'" in message
    there = resolved_class(reclaimPolicy="Delete", storage={"endpoint": "https://old.example.com"})
    assert removed(deletion(status=status, class_=there)) == [FOLDER]


def test_a_place_is_remembered_once() -> None:
    status = with_folder(STATUS, f"{FOLDER}/run", "cpu", "")
    assert status.storage_folders == [StorageFolder(uri=FOLDER, class_name="cpu", endpoint="")]
    assert with_folder(status, f"{FOLDER}/run-2", "cpu", "") == status


def test_a_place_is_remembered_at_each_endpoint_that_its_class_named() -> None:
    """Its deletion empties it at the one that the class names by now, and tells of the others."""
    status = with_folder(with_folder(STATUS, f"{FOLDER}/run", "cpu", ""), f"{FOLDER}/run-2", "cpu", "https://b.test")
    assert [(one.uri, one.endpoint) for one in status.storage_folders] == [(FOLDER, ""), (FOLDER, "https://b.test")]
    assert not status.more_storage_folders
    assert_storable(status)
    assert removed(deletion(status=status)) == [FOLDER]
    end = plan(deletion(tried(1, "Complete"), status=status), NOW)
    assert end.left_behind is not None
    assert "It is at https://b.test, but FineTuneClass 'cpu' now has AWS." in end.left_behind.note.message


def test_an_endpoint_that_nobody_knows_is_no_other_place() -> None:
    status = with_folder(STATUS, f"{FOLDER}/run", "cpu", "https://a.test")
    assert with_folder(status, f"{FOLDER}/run-2", "cpu") == status


def test_a_run_that_lies_where_no_class_is_known_to_have_written_stays_and_is_reported() -> None:
    earlier = EndedRun(
        run_id="0",
        phase="Succeeded",
        reason="Succeeded",
        completion_time=ago(500),
        storage_uri="s3://old/a/team-a/router/0-0f3c2a91",
    )
    observed = deletion(status=STATUS.model_copy(update={"history": [earlier]}))
    assert removed(observed) == [FOLDER]
    left = plan(replace(observed, jobs=(tried(1, "Complete"),)), NOW).left_behind
    assert left is not None
    assert "s3://old/a/team-a/router: It is not known which FineTuneClass it belongs to." in left.note.message


def test_every_storage_that_the_class_named_meanwhile_is_emptied() -> None:
    """Preflight wrote into the first one before the class was corrected."""
    assert removed(moved(wrote("s3://wrong/a/team-a/router", "cpu"))) == [FOLDER, "s3://wrong/a/team-a/router"]


@pytest.mark.parametrize(
    ("name", "mine"),
    [
        (run_folder("1", OWNER.uid), True),
        (run_folder("nightly.2026-11-22", OWNER.uid), True),
        ("1-deadbeef", False),
        ("0f3c2a91", False),
        ("-0f3c2a91", False),
        ("1-0f3c2a91-deadbeef", False),
        ("10f3c2a91", False),
    ],
)
def test_a_run_folder_is_the_objects_by_the_uid_in_its_name(name: str, mine: bool) -> None:
    assert is_run_folder(name, OWNER.uid) is mine


# What is read.


def test_a_removal_has_a_name_of_its_own_for_each_class_that_answers_for_it() -> None:
    """A class that was made anew, or an operator of before there were such owners, left a Job that nobody may adopt."""
    again = replace(resolved_class(reclaimPolicy="Delete"), uid="made-anew")
    jobs = [delete_job(OWNER, "1", class_, [], 1) for class_ in (resolved_class(reclaimPolicy="Delete"), again)]
    first, second = (body["metadata"]["name"] for body in jobs)
    assert first != second
    assert child_name(OWNER, "delete", 1) not in (first, second)
