"""A deleted FineTuneJob whose class says reclaimPolicy: Delete: stop, remove, let go, and always come to an end."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.finetunejob.status import StorageFolder
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import DeleteRun
from finetune_operator.finetunejob.deletion.objects import STORAGE_DEADLINE_SECONDS
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.deletion.plan import FINALIZER, MOST_JOBS, holds_storage, plan
from finetune_operator.kube.resources import FINE_TUNE_JOBS
from finetune_operator.release_finalizers import release_finalizers
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.finetunejob.deletion.deletions import (
    DELETING,
    FOLDER,
    RECLAIMING,
    STATUS,
    deletion,
    removal,
    tried,
    try_name,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    OWNER,
    TRAIN_1,
    ago,
    failed_pod,
    files_of,
    job,
    observed_job,
    pod,
    resolved_class,
)

NEVER_STARTED = FineTuneJobStatus(class_name="cpu")
DENIED = Failure(reason=Reason.STORAGE_DENIED, message="The storage refused the key: 403.")


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
        deletion(tried(1, "Failed", end_time=ago(3))),
        Decision(again_in=7),
    ),
    "and another try": (
        deletion(tried(1, "Failed", end_time=ago(10))),
        Decision(creates=try_name(2), again_in=15),
    ),
    "the pauses grow": (
        deletion(tried(1, "Failed", end_time=ago(60)), tried(2, "Failed", end_time=ago(15))),
        Decision(again_in=5),
    ),
    "the last try is the last": (
        deletion(*(tried(number, "Failed", end_time=ago(5)) for number in range(1, MOST_JOBS + 1))),
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
        deletion(class_=CLASS_NOT_FOUND),
        Decision(goes=True, stays=True),
    ),
    "the class has changed its mind": (
        deletion(job(TRAIN_1), class_=resolved_class(reclaimPolicy="Retain")),
        Decision(goes=True),
    ),
    "what never started left nothing": (deletion(status=NEVER_STARTED), Decision(goes=True)),
    "what never started, without its class": (
        deletion(status=NEVER_STARTED, class_=CLASS_NOT_FOUND),
        Decision(goes=True),
    ),
    "a Job that the status does not know of yet may have written": (
        deletion(job(TRAIN_1, "Failed"), status=NEVER_STARTED),
        Decision(creates=try_name(1), again_in=15),
    ),
}


@pytest.mark.parametrize(("observed", "decision"), TABLE.values(), ids=TABLE)
def test_each_state_of_a_deletion_has_its_decision(observed: ObservedDeletion, decision: Decision) -> None:
    assert decided(observed) == decision


@pytest.mark.parametrize("observed", [case for case, _ in TABLE.values()], ids=TABLE)
def test_it_always_comes_to_an_end(observed: ObservedDeletion) -> None:
    assert plan(observed, observed.deleted + timedelta(seconds=STORAGE_DEADLINE_SECONDS)).release


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (deletion(pods=(ENDING_POD,)), f"Pod {ENDING_POD.name} must end before the storage is emptied."),
        (deletion(tried(1)), f"Job {try_name(1)} is removing {FOLDER}."),
        (
            deletion(tried(1, "Failed", end_time=ago(3)), pods=(failed_pod(try_name(1), DENIED, role="delete"),)),
            "The storage refused the key: 403. The next try, 2 of 5, starts at 12:00:07 UTC.",
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
        (deletion(class_=CLASS_NOT_FOUND), "FineTuneClass 'cpu' does not exist."),
        (deletion(namespace_ends=True), "The namespace is being deleted too"),
        (
            deletion(
                *(tried(number, "Failed", end_time=ago(5)) for number in range(1, MOST_JOBS + 1)),
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
        f"FineTuneJob team-a/router (uid {OWNER.uid}) was deleted, but not its objects in {FOLDER}: "
        in left.note.message
    )
    assert why in left.note.message


@pytest.mark.parametrize(
    ("endpoint", "end"),
    [("http://s3:8333", " --endpoint-url http://s3:8333"), ("", "/*'"), (None, " --endpoint-url ENDPOINT")],
    ids=["its own", "AWS's", "not known"],
)
def test_the_command_for_what_stays_can_be_run_as_it_is(endpoint: str | None, end: str) -> None:
    known = [StorageFolder(uri=FOLDER, class_name="cpu", endpoint=endpoint)]
    status = STATUS.model_copy(update={"storage_folders": known})
    left = plan(deletion(status=status, namespace_ends=True), NOW).left_behind
    assert left is not None
    assert f"aws s3 rm --recursive {FOLDER}/ --exclude '*' --include '*" in left.note.message
    assert left.note.message.endswith(end)


def test_the_deletion_job_has_its_whole_configuration_in_its_own_object() -> None:
    """So that it goes as one, and a foreground deletion, which takes what the FineTuneJob owns, leaves it."""
    made = removal(deletion())
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("FineTuneClass", "cpu", "u-cpu", True)
    assert made["metadata"]["labels"]["finetune.dev/owner-uid"] == OWNER.uid
    template = made["spec"]["template"]
    run = DeleteRun.model_validate_json(files_of(made)["run.json"])
    assert run.job.uid == OWNER.uid
    assert run.folder_uris == [FOLDER]
    (container,) = template["spec"]["containers"]
    assert container["args"] == ["delete", "/etc/finetune/run.json"]
    assert "example.com/gpu" not in json.dumps(container)


def test_the_deletion_job_ends_and_is_removed_without_an_operator() -> None:
    spec = removal(deletion())["spec"]
    assert spec["activeDeadlineSeconds"] == STORAGE_DEADLINE_SECONDS
    assert spec["ttlSecondsAfterFinished"] == 3600


@pytest.mark.parametrize(
    ("class_", "holds"),
    [(DELETING, True), (resolved_class(), False), (CLASS_NOT_FOUND, None)],
    ids=["Delete", "Retain, the default", "no class"],
)
def test_the_storage_is_held_where_the_class_says_so(class_: Any, holds: bool | None) -> None:
    assert holds_storage(observed_job(class_=class_)) is holds
    also = replace(observed_job(class_=class_), folder_classes=(RECLAIMING,))
    assert holds_storage(also) is True, "an earlier run's class says so"
    gone = replace(observed_job(class_=class_), folder_classes=(CLASS_NOT_FOUND,))
    assert holds_storage(gone) is (True if holds else None)


# What is read.


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
