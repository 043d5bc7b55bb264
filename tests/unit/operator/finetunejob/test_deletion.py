"""A deleted FineTuneJob whose class says reclaimPolicy: Delete: stop, remove, let go, and always come to an end."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, StorageFolder
from finetune_api.outcome import Failure
from finetune_api.run import DeleteRun, is_run_folder, run_folder
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import child_name
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.deletion.objects import RUN_ANNOTATION, STORAGE_DEADLINE_SECONDS, delete_job
from finetune_operator.finetunejob.deletion.observe import observe
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.deletion.plan import FINALIZER, MOST_JOBS, holds_storage, plan
from finetune_operator.finetunejob.plan import plan as job_plan
from finetune_operator.finetunejob.storage_folders import FOLDERS_KEPT, with_folder
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, FINE_TUNE_JOBS, JOBS, NAMESPACES, PODS
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.release_finalizers import release_finalizers
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    CLASS_WIRE,
    JOB_WIRE,
    NOW,
    OWNER,
    STORAGE_URI,
    TRAIN_1,
    ago,
    failed_pod,
    job,
    job_spec,
    merged,
    observed_job,
    pod,
    resolved_class,
    trained_status,
)

FOLDER = "s3://models/finetune/team-a/router"
DELETING = resolved_class(reclaimPolicy="Delete")
STATUS = trained_status(storage_uri=STORAGE_URI, class_name="cpu")
NEVER_STARTED = FineTuneJobStatus(class_name="cpu")
DENIED = Failure(reason=Reason.STORAGE_DENIED, message="The storage refused the key: 403.")


def try_name(number: int) -> str:
    return child_name(OWNER, "delete", "u-cpu", number)


def tried(number: int, state: Any = "Active", **changes: Any) -> JobView:
    return job(try_name(number), state, role="delete", created=ago(100 - number), **changes)


def deletion(*jobs: JobView, pods: tuple[PodView, ...] = (), **changes: Any) -> ObservedDeletion:
    """A job that was deleted ten seconds ago, after it had trained."""
    observed = ObservedDeletion(
        owner=OWNER,
        generation=1,
        status=STATUS,
        class_name="cpu",
        platform=DELETING,
        deleted=ago(10),
        jobs=jobs,
        pods=pods,
    )
    return replace(observed, **changes)


@dataclass(frozen=True)
class Decision:
    """What a person would name of a deletion."""

    creates: str | None = None
    deletes: tuple[str, ...] = ()
    goes: bool = False
    stays: bool = False
    """Whether the class is told that objects stay in the storage."""
    again_in: float | None = None


def decided(observed: ObservedDeletion) -> Decision:
    decision = plan(observed, NOW)
    created = [item["metadata"]["name"] for item in decision.plan.create]
    requeue_at = decision.plan.requeue_at
    return Decision(
        creates=created[0] if created else None,
        deletes=tuple(child.name for child in decision.plan.delete),
        goes=decision.release,
        stays=decision.left_behind is not None,
        again_in=(requeue_at - NOW).total_seconds() if requeue_at and not decision.release else None,
    )


ENDING_POD = pod(TRAIN_1, phase="Running")
ENDED_POD = pod(TRAIN_1, phase="Failed", exit_code=143)
STUCK = deletion(
    tried(1), pods=(pod(try_name(1), role="delete", phase="Pending"),), deleted=ago(STORAGE_DEADLINE_SECONDS)
)
TABLE: dict[str, tuple[ObservedDeletion, Decision]] = {
    "what trains is stopped first": (
        deletion(job(TRAIN_1), pods=(ENDING_POD,)),
        Decision(deletes=(TRAIN_1,), again_in=15),
    ),
    "what was stopped may still write": (
        deletion(job(TRAIN_1, deleting=True), pods=(ENDING_POD,)),
        Decision(again_in=15),
    ),
    "and is stopped where a finalizer of somebody else's keeps its Job": (
        deletion(job(TRAIN_1, deleting=True, finalizers=("example.com/hold",)), pods=(ENDING_POD,)),
        Decision(deletes=(TRAIN_1,), again_in=15),
    ),
    "which is not waited for": (
        deletion(job(TRAIN_1, deleting=True, finalizers=("example.com/hold",))),
        Decision(creates=try_name(1), again_in=15),
    ),
    "a Pod whose Job is gone may still write": (deletion(pods=(ENDING_POD,)), Decision(again_in=15)),
    "what was disowned may still write": (deletion(disowned=(job(TRAIN_1),)), Decision(again_in=15)),
    "until it has ended": (
        deletion(disowned=(job(TRAIN_1, "Failed"),)),
        Decision(creates=try_name(1), again_in=15),
    ),
    "then a Job removes the objects": (
        deletion(job(TRAIN_1, "Failed"), pods=(ENDED_POD,)),
        Decision(creates=try_name(1), again_in=15),
    ),
    "which takes its time": (deletion(tried(1)), Decision(again_in=15)),
    "and the object goes with it": (
        deletion(tried(1, "Complete")),
        Decision(deletes=(try_name(1),), goes=True),
    ),
    "it is done even if the namespace ends now": (
        deletion(tried(1, "Complete"), namespace_ends=True),
        Decision(deletes=(try_name(1),), goes=True),
    ),
    "after a failure there is a pause": (
        deletion(tried(1, "Failed", ended=ago(3))),
        Decision(again_in=7),
    ),
    "and another try": (
        deletion(tried(1, "Failed", ended=ago(10))),
        Decision(creates=try_name(2), again_in=15),
    ),
    "the pauses grow": (
        deletion(tried(1, "Failed", ended=ago(60)), tried(2, "Failed", ended=ago(15))),
        Decision(again_in=5),
    ),
    "the last try is the last": (
        deletion(*(tried(number, "Failed", ended=ago(5)) for number in range(1, MOST_JOBS + 1))),
        Decision(deletes=tuple(try_name(number) for number in range(1, MOST_JOBS + 1)), goes=True, stays=True),
    ),
    "a Pod that can't start does not keep it for ever": (
        STUCK,
        Decision(deletes=(try_name(1),), goes=True, stays=True),
    ),
    "nor does a Pod that can't be stopped": (
        deletion(pods=(ENDING_POD,), deleted=ago(STORAGE_DEADLINE_SECONDS)),
        Decision(goes=True, stays=True),
    ),
    "it looks again when the time is over": (
        deletion(tried(1), deleted=ago(STORAGE_DEADLINE_SECONDS - 4)),
        Decision(again_in=4),
    ),
    "in a namespace that ends nothing is tried": (
        deletion(job(TRAIN_1), pods=(ENDING_POD,), namespace_ends=True),
        Decision(goes=True, stays=True),
    ),
    "without its class nobody knows how": (
        deletion(platform=CLASS_NOT_FOUND),
        Decision(goes=True, stays=True),
    ),
    "the class has changed its mind": (
        deletion(job(TRAIN_1), platform=resolved_class(reclaimPolicy="Retain")),
        Decision(goes=True),
    ),
    "what never started left nothing": (deletion(status=NEVER_STARTED), Decision(goes=True)),
    "what never started, without its class": (
        deletion(status=NEVER_STARTED, platform=CLASS_NOT_FOUND),
        Decision(goes=True),
    ),
    "a Job that the status does not know of yet may have written": (
        deletion(job(TRAIN_1, "Failed"), status=NEVER_STARTED),
        Decision(creates=try_name(1), again_in=15),
    ),
}


@pytest.mark.parametrize(("observed", "decision"), TABLE.values(), ids=TABLE)
def test_decisions(observed: ObservedDeletion, decision: Decision) -> None:
    assert decided(observed) == decision


@pytest.mark.parametrize("observed", [case for case, _ in TABLE.values()], ids=TABLE)
def test_it_always_comes_to_an_end(observed: ObservedDeletion) -> None:
    assert plan(observed, observed.deleted + timedelta(seconds=STORAGE_DEADLINE_SECONDS)).release


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (deletion(pods=(ENDING_POD,)), f"Pod {ENDING_POD.name} must end before the storage is emptied."),
        (deletion(tried(1)), f"Job {try_name(1)} removes {FOLDER}."),
        (
            deletion(tried(1, "Failed", ended=ago(3)), pods=(failed_pod(try_name(1), DENIED, role="delete"),)),
            "The storage refused the key: 403. Tried again at 12:00:07 UTC, 2 of 5.",
        ),
    ],
    ids=["stopping", "removing", "again"],
)
def test_who_waits_reads_what_for(observed: ObservedDeletion, words: str) -> None:
    (ready, stalled) = plan(observed, NOW).plan.status.conditions
    assert (ready.status, ready.reason, ready.message) == ("False", "Deleting", words)
    assert stalled.status == "False"


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        (deletion(platform=CLASS_NOT_FOUND), "FineTuneClass 'cpu' does not exist."),
        (deletion(namespace_ends=True), "The namespace was deleted with it"),
        (
            deletion(
                *(tried(number, "Failed", ended=ago(5)) for number in range(1, MOST_JOBS + 1)),
                pods=(failed_pod(try_name(MOST_JOBS), DENIED, role="delete"),),
            ),
            "The storage refused the key: 403.",
        ),
        (STUCK, "It took too long."),
    ],
    ids=["no class", "namespace", "failures", "time"],
)
def test_the_class_hears_what_stays_where_and_why(observed: ObservedDeletion, why: str) -> None:
    left = plan(observed, NOW).left_behind
    assert left is not None
    assert left.class_name == "cpu"
    assert (left.note.type, left.note.reason) == ("Warning", "StorageKept")
    assert (
        f"FineTuneJob team-a/router (uid {OWNER.uid}) is deleted, but not its objects in {FOLDER}: "
        in left.note.message
    )
    assert why in left.note.message


def removal(observed: ObservedDeletion) -> dict[str, Any]:
    (made,) = plan(observed, NOW).plan.create
    return made


def test_the_job_that_removes_is_told_everything_in_its_own_object() -> None:
    """So that it goes as one, and a foreground deletion, which takes what the FineTuneJob owns, leaves it."""
    made = removal(deletion())
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("FineTuneClass", "cpu", "u-cpu", True)
    assert made["metadata"]["labels"]["finetune.dev/owner-uid"] == OWNER.uid
    template = made["spec"]["template"]
    run = DeleteRun.model_validate_json(template["metadata"]["annotations"][RUN_ANNOTATION])
    assert run.job.uid == OWNER.uid
    assert run.folder_uris == [FOLDER]
    (volume,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "run"]
    (item,) = volume["downwardAPI"]["items"]
    assert item == {"path": "run.json", "fieldRef": {"fieldPath": f"metadata.annotations['{RUN_ANNOTATION}']"}}
    (container,) = template["spec"]["containers"]
    assert container["args"] == ["delete", "/etc/finetune/run.json"]
    assert "example.com/gpu" not in json.dumps(container)


def test_the_job_that_removes_goes_by_itself_when_no_operator_is_left() -> None:
    spec = removal(deletion())["spec"]
    assert spec["activeDeadlineSeconds"] == STORAGE_DEADLINE_SECONDS
    assert spec["ttlSecondsAfterFinished"] == 3600


def removed(observed: ObservedDeletion) -> list[str]:
    made = removal(observed)["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION]
    return DeleteRun.model_validate_json(made).folder_uris


def wrote(uri: str, class_name: str) -> StorageFolder:
    return StorageFolder(uri=uri, class_name=class_name)


def named(name: str, **changes: Any) -> ResolvedClass:
    return replace(resolved_class(**changes), name=name, uid=f"u-{name}")


def moved(*folders: StorageFolder, **classes: ResolvedClass | Readiness) -> ObservedDeletion:
    """A job of the class "cpu", whose earlier runs had other classes."""
    status = STATUS.model_copy(update={"storage_folders": [*folders, wrote(FOLDER, "cpu")]})
    return deletion(status=status, other_classes=classes)


PROD = "s3://models/prod/team-a/router"
RETAINING = named("prod", storage={"prefix": "prod"})
RECLAIMING = named("prod", reclaimPolicy="Delete", storage={"prefix": "prod"})
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
    assert removed(replace(observed, platform=resolved_class())) == [PROD], "though the newest class wants its retained"


@pytest.mark.parametrize(
    ("folder", "prod", "why"),
    [
        (PROD, CLASS_NOT_FOUND, "does not exist"),
        (PROD, FAR, "FineTuneClass 'prod' has another endpoint or other credentials than 'cpu'"),
        (PROD, AS_SOMEBODY_ELSE, "FineTuneClass 'prod' has another endpoint or other credentials than 'cpu'"),
        (FOLDER, RETAINING, "FineTuneClass 'prod', by which runs wrote there too, has reclaimPolicy Retain."),
        (FOLDER, FAR, "FineTuneClass 'prod' has another endpoint"),
    ],
    ids=["its class is gone", "elsewhere", "another key", "shared with one that retains", "of the same name elsewhere"],
)
def test_what_this_class_can_not_or_must_not_remove_stays_and_is_told(
    folder: str, prod: ResolvedClass | Readiness, why: str
) -> None:
    observed = moved(wrote(folder, "prod"), prod=prod)
    if folder != FOLDER:
        assert removed(observed) == [FOLDER]
    end = plan(replace(observed, jobs=(tried(1, "Complete"),)), NOW)
    assert end.release
    assert end.left_behind is not None
    assert f"is deleted, but not its objects in {folder}: " in end.left_behind.note.message
    assert why in end.left_behind.note.message


def test_what_an_earlier_class_wants_deleted_is_told_of_where_the_newest_retains() -> None:
    end = plan(replace(moved(wrote(PROD, "prod"), prod=FAR), platform=resolved_class()), NOW)
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


def test_what_lies_at_an_endpoint_that_its_class_does_not_name_any_more_stays_and_is_told() -> None:
    """The Job that removes would look elsewhere, find nothing, and be done."""
    before = StorageFolder(uri=FOLDER, class_name="cpu", endpoint="https://old.example.com")
    status = STATUS.model_copy(update={"storage_folders": [before]})
    end = plan(deletion(status=status), NOW)
    assert (end.release, end.plan.create) == (True, ())
    assert end.left_behind is not None
    message = end.left_behind.note.message
    assert f"{FOLDER}: It is at https://old.example.com, and FineTuneClass 'cpu' names AWS by now." in message
    assert "aws s3 rm --recursive" in message
    assert "--include '*-0f3c2a91/*'" in message
    there = resolved_class(reclaimPolicy="Delete", storage={"endpoint": "https://old.example.com"})
    assert removed(deletion(status=status, platform=there)) == [FOLDER]


def test_a_place_is_remembered_once() -> None:
    status = with_folder(STATUS, f"{FOLDER}/run", "cpu", "")
    assert status.storage_folders == [StorageFolder(uri=FOLDER, class_name="cpu", endpoint="")]
    assert with_folder(status, f"{FOLDER}/run-2", "cpu", "") == status
    assert with_folder(status, f"{FOLDER}/run-2", "cpu", "https://b.test").more_storage_folders, "one class, two places"


def test_a_run_that_lies_where_no_class_is_known_to_have_written_stays_and_is_told() -> None:
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
    assert "s3://old/a/team-a/router: Nobody wrote down which FineTuneClass it belongs to." in left.note.message


def test_every_place_goes_that_the_class_named_meanwhile() -> None:
    """Preflight wrote into the first one before the class was corrected."""
    assert removed(moved(wrote("s3://wrong/a/team-a/router", "cpu"))) == [FOLDER, "s3://wrong/a/team-a/router"]


@pytest.mark.parametrize(
    ("platform", "holds"),
    [(DELETING, True), (resolved_class(), False), (CLASS_NOT_FOUND, None)],
    ids=["Delete", "Retain, the default", "no class"],
)
def test_the_storage_is_held_where_the_class_says_so(platform: Any, holds: bool | None) -> None:
    assert holds_storage(observed_job(platform=platform)) is holds
    also = replace(observed_job(platform=platform), folder_classes=(RECLAIMING,))
    assert holds_storage(also) is True, "an earlier run's class says so"
    gone = replace(observed_job(platform=platform), folder_classes=(CLASS_NOT_FOUND,))
    assert holds_storage(gone) is (True if holds else None)


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
def test_whose_folder_it_is(name: str, mine: bool) -> None:
    assert is_run_folder(name, OWNER.uid) is mine


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
async def test_whether_the_namespace_ends(answer: Any, ends: bool) -> None:
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


@pytest.mark.parametrize("folder", [PROD, {"uri": PROD}, {"uri": PROD, "className": 7}])
async def test_a_folder_without_a_class_in_another_versions_status_stays_and_is_told(folder: Any) -> None:
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


async def test_without_an_operator_only_our_finalizer_is_taken_away() -> None:
    def job_that_holds(name: str, *finalizers: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "team-a", "uid": name, "resourceVersion": "1"}
        return {"metadata": {**metadata, **({"finalizers": list(finalizers)} if finalizers else {})}}

    listed = [
        job_that_holds("a", FINALIZER, "example.com/theirs"),
        job_that_holds("b"),
        job_that_holds("c", "example.com/theirs"),
    ]
    kube = FakeKube({f"GET {FINE_TUNE_JOBS.path(None)}": {"items": listed}})
    assert await release_finalizers(kube) == ["team-a/a"]
    assert kube.writes == [f"PATCH {FINE_TUNE_JOBS.path('team-a', 'a')}"]
    assert kube.requests[-1].query["fieldManager"] == "finetune-operator-storage"
    assert kube.requests[-1].body is not None
    assert kube.requests[-1].body["metadata"]["finalizers"] == ["example.com/theirs"]


def test_a_removal_has_a_name_of_its_own_for_each_class_that_answers_for_it() -> None:
    """A class that was made anew, or an operator of before there were such owners, left a Job that nobody may adopt."""
    again = replace(resolved_class(reclaimPolicy="Delete"), uid="made-anew")
    jobs = [delete_job(OWNER, "1", platform, [], 1) for platform in (resolved_class(reclaimPolicy="Delete"), again)]
    first, second = (body["metadata"]["name"] for body in jobs)
    assert first != second
    assert child_name(OWNER, "delete", 1) not in (first, second)
