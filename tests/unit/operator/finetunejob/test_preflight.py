"""The preflight of a FineTuneJob: how it starts, what it finds, and when it is tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, MemoryEstimate, StorageFolder
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import Failure
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.finetunejob.beginnings import NEW, PREFLIGHT_OBJECTS, decide
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    NETWORK_FAILURE,
    NOW,
    PREFLIGHT_1,
    PREFLIGHT_2,
    PREFLIGHT_REPORT,
    RESOLVED,
    STORAGE_URI,
    TRAIN_1,
    Decision,
    ago,
    earlier_conditions,
    failed_pod,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    of_job,
    pod,
    preflight_status,
    resolved_class,
    succeeded_pod,
)

PREFLIGHT_2_OBJECTS = (f"Pod/{PREFLIGHT_2}",)
TRAIN_OBJECTS = (f"Job/{TRAIN_1}",)
LIMIT_EXCEEDED = stalled(Reason.LIMIT_EXCEEDED, "spec.parallelism.nodes is 9; FineTuneClass 'cpu' allows 8.")
MISSING_SECRET = 'secret "s3-credentials" not found'


# A new run.


def test_a_new_job_starts_with_preflight_on_a_cpu_pod() -> None:
    result = decide(observed_job(NEW))
    assert result.decision == Decision("Validating", "Validating", writes=PREFLIGHT_OBJECTS, again_in=15)
    assert result.status.run_id == "1"
    assert result.status.start_time == NOW
    assert result.status.class_name == "cpu"
    assert result.status.storage_uri == STORAGE_URI
    assert result.status.preflight == preflight_status()


def test_each_place_that_preflight_wrote_into_is_remembered() -> None:
    """A class with a wrong bucket is corrected before training: the run goes there, and deletion finds both."""
    wrong = decide(observed_job(NEW, class_=resolved_class(storage={"bucket": "wrong"}))).status
    assert wrong.storage_folders == [
        StorageFolder(uri="s3://wrong/finetune/team-a/router", class_name="cpu", endpoint="")
    ]
    retried = wrong.model_copy(update={"preflight": preflight_status(succeeded=False, retry_time=NOW)})
    right = decide(observed_job(retried)).status
    assert right.storage_uri == STORAGE_URI
    second = StorageFolder(uri="s3://models/finetune/team-a/router", class_name="cpu", endpoint="")
    assert right.storage_folders == [*wrong.storage_folders, second]
    done = right.model_copy(update={"phase": "Succeeded", "completion_time": NOW})
    again = decide(observed_job(done, spec=job_spec(runId="2"))).status
    assert again.storage_folders == right.storage_folders
    moved = decide(observed_job(done, spec=job_spec(runId="2"), class_=replace(resolved_class(), name="gpu"))).status
    third = StorageFolder(uri=second.uri, class_name="gpu", endpoint="")
    assert moved.storage_folders == [*right.storage_folders, third], "also the same place by another class"


# Preflight.


@pytest.mark.parametrize(
    ("pods", "reason", "told"),
    [
        ((), None, []),
        ((pod(PREFLIGHT_1, phase="Pending"),), None, []),
        ((pod(PREFLIGHT_1, phase="Pending", unschedulable_since=ago(10)),), None, []),
        (
            (pod(PREFLIGHT_1, phase="Pending", unschedulable_since=ago(30), unschedulable_message="0/3 nodes fit."),),
            Reason.UNSCHEDULABLE,
            ["0/3 nodes fit.", "Free or add nodes"],
        ),
        (
            (pod(PREFLIGHT_1, phase="Pending", waiting_reason="ImagePullBackOff", waiting_message="Back-off pulling"),),
            Reason.IMAGE_PULL_FAILED,
            ["Back-off pulling", "spec.images of the FineTuneClass"],
        ),
    ],
    ids=["no Pod yet", "Pod starts", "not placed for 10 s", "not placed for 30 s", "no image"],
)
def test_a_preflight_pod_that_does_not_start_is_diagnosed(
    pods: tuple[Any, ...], reason: Reason | None, told: list[str]
) -> None:
    before = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
    result = decide(observed_job(before, job(PREFLIGHT_1), pods=pods))
    if reason is None:
        assert result.decision == Decision("Validating", "Validating", again_in=15)
    else:
        assert result.decision == Decision("Validating", reason, stalled=True, again_in=15, event=f"Warning {reason}")
    assert all(part in result.message for part in told), result.message


def test_a_secret_that_is_missing_is_reported_by_the_kubelets_warning() -> None:
    before = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
    waits = pod(PREFLIGHT_1, phase="Pending", uid="p")
    warning = WarningEvent("p", "FailedMount", f'MountVolume.SetUp failed for volume "x": {MISSING_SECRET}', ago(5))
    result = decide(observed_job(before, job(PREFLIGHT_1), pods=(waits,), warnings=(warning,)))
    assert result.decision == Decision(
        "Validating", "SecretNotFound", stalled=True, again_in=15, event="Warning SecretNotFound"
    )
    assert MISSING_SECRET in result.message


def test_an_image_that_can_not_be_pulled_for_fifteen_minutes_ends_the_run() -> None:
    before = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
    waits = pod(PREFLIGHT_1, phase="Pending", waiting_reason="ErrImagePull", scheduled_time=ago(900))
    observed = observed_job(before, job(PREFLIGHT_1), pods=(waits,))
    result = decide(observed)
    assert result.decision == Decision(
        "Failed", "ImagePullFailed", stalled=True, again_in=0, event="Warning ImagePullFailed"
    )
    assert decide(replace(observed, status=result.status)).decision.deletes == of_job(PREFLIGHT_1)


def test_the_estimate_of_memory_is_shown() -> None:
    estimate = MemoryEstimate(weights=9, gradients=3, optimizer=6, activations=2, total=20, accelerator=40)
    report = PREFLIGHT_REPORT.model_copy(update={"memory": estimate})
    observed = observed_job(
        job_status(preflight=preflight_status()),
        job(PREFLIGHT_1, "Complete"),
        pods=(succeeded_pod(PREFLIGHT_1, report),),
    )
    assert decide(observed).status.memory == estimate


def test_a_try_waits_until_the_pod_of_the_one_before_has_ended() -> None:
    ending = pod(PREFLIGHT_1, deletion_time=later(20))
    result = decide(observed_job(refused_before(retry_in=0), pods=(ending,)))
    assert (result.decision.phase, result.decision.writes, result.decision.again_in) == ("Validating", (), 15)
    assert "The next try has not started yet. Waiting for 1 Pod to save and end, by 12:00:20 UTC" in result.message
    assert (result.decision.reason, result.decision.stalled) == ("DatasetInvalid", True), "and the diagnosis stands"


def test_a_preflight_pod_that_starts_after_all_clears_its_diagnosis() -> None:
    blocked = job_status(
        preflight=preflight_status(), conditions=earlier_conditions(Reason.SECRET_NOT_FOUND, stalled=True)
    )
    observed = observed_job(blocked, job(PREFLIGHT_1), pods=(pod(PREFLIGHT_1),))
    assert decide(observed).decision == Decision("Validating", "Validating", again_in=15, event="Normal Validating")


def failed_preflight(answer: Failure) -> ObservedFineTuneJob:
    before = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
    return observed_job(before, job(PREFLIGHT_1, "Failed"), pods=(failed_pod(PREFLIGHT_1, answer),))


def test_a_broken_line_is_named_and_checked_again_after_ten_seconds() -> None:
    result = decide(failed_preflight(LINE_7))
    assert result.decision == Decision(
        "Validating", "DatasetInvalid", stalled=True, again_in=10, event="Warning DatasetInvalid"
    )
    assert result.message == f"{LINE_7.message} The next try starts at 12:00:10 UTC."
    (error,) = result.status.dataset.errors
    assert (error.file, error.line) == ("training", 7)
    assert result.status.failure == FailureStatus(
        reason="DatasetInvalid", message=LINE_7.message, pod=f"{PREFLIGHT_1}-0-abcde", rank=0
    )
    assert result.status.preflight == preflight_status(succeeded=False, retry_time=later(10))


@pytest.mark.parametrize(
    "reason",
    [
        Reason.STORAGE_DENIED,
        Reason.STORAGE_UNREACHABLE,
        Reason.BUCKET_NOT_FOUND,
        Reason.DATASET_NOT_FOUND,
        Reason.DATASET_INVALID,
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_INVALID,
        Reason.OUT_OF_MEMORY,
        Reason.FAILED,
    ],
)
def test_each_finding_of_preflight_is_reported_verbatim_and_checked_again(reason: Reason) -> None:
    result = decide(failed_preflight(Failure(reason=reason, message="What happened. What to change.")))
    assert result.decision == Decision("Validating", reason, stalled=True, again_in=10, event=f"Warning {reason}")
    assert result.message.startswith("What happened. What to change. The next try starts at ")


WAY_OUT = "Changing the spec requires a new runId."


@pytest.mark.parametrize("reason", [Reason.DATASET_NOT_FOUND, Reason.MODEL_NOT_FOUND, Reason.MODEL_INVALID])
def test_what_another_spec_may_mend_says_what_a_change_of_the_spec_takes(reason: Reason) -> None:
    """The API server refuses it within a run."""
    answer = Failure(reason=reason, message="Nothing is at s3://data/train.json. Upload it, or correct the URI.")
    message = decide(failed_preflight(answer)).message
    assert message.startswith(answer.message)
    assert message.endswith(WAY_OUT)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_": CLASS_NOT_FOUND},
        {"class_": resolved_class(sources={"datasets": ["s3://public/*"]})},
        {"class_": resolved_class(limits={"nodes": 2}), "spec": job_spec(parallelism={"nodes": 3})},
        {"spec": job_spec(adapter={"type": "QLoRA"})},
    ],
    ids=["class", "source", "limit", "QLoRA"],
)
def test_what_the_class_refuses_says_what_a_change_of_the_spec_takes(changes: dict[str, Any]) -> None:
    assert decide(observed_job(NEW, **changes)).message.endswith(WAY_OUT)


def test_what_is_mended_elsewhere_does_not_speak_of_the_spec() -> None:
    answer = Failure(reason=Reason.STORAGE_DENIED, message="The storage refused the key: 403.")
    assert "runId" not in decide(failed_preflight(answer)).message


def test_what_only_another_spec_can_mend_ends_the_run() -> None:
    said = Failure(reason=Reason.INVALID_SPEC, message="hyperparameters.maxLength is 100000, beyond 512 tokens.")
    result = decide(failed_preflight(said))
    assert (result.status.phase, result.decision.reason, result.decision.stalled) == ("Failed", "InvalidSpec", True)
    assert (
        result.message == "hyperparameters.maxLength is 100000, beyond 512 tokens. Correct the spec and change runId."
    )
    assert result.status.preflight.retry_time is None


def refused_before(retry_in: float, **changes: Any) -> FineTuneJobStatus:
    """A run whose first preflight found line 7 broken."""
    status = plan(failed_preflight(LINE_7), NOW).status
    assert status.preflight is not None
    retry = status.preflight.model_copy(update={"retry_time": later(retry_in)})
    return status.model_copy(update={"preflight": retry, **changes})


def test_the_diagnosis_is_kept_until_the_next_retry() -> None:
    observed = observed_job(refused_before(retry_in=7), job(PREFLIGHT_1, "Failed"))
    assert decide(observed).decision == Decision("Validating", "DatasetInvalid", stalled=True, again_in=7)


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [("0/3 nodes are available: 3 Insufficient cpu.", "DatasetInvalid"), ("0/3 nodes fit.", "Unschedulable")],
    ids=["waits for room", "fits no node"],
)
def test_a_next_try_that_does_not_start_hides_no_diagnosis(scheduler: str, reason: str) -> None:
    """What has only to be waited for takes its place nowhere; what a person has to mend first has it after itself."""
    started = decide(observed_job(refused_before(retry_in=0), job(PREFLIGHT_1, "Failed"))).status
    waits = pod(PREFLIGHT_2, phase="Pending", unschedulable_since=ago(31), unschedulable_message=scheduler)
    result = decide(observed_job(started, job(PREFLIGHT_2), pods=(waits,)))
    assert (result.decision.phase, result.decision.reason, result.decision.stalled) == ("Validating", reason, True)
    assert (LINE_7.message in result.message, scheduler in result.message) == (True, True)
    assert (result.decision.event is None) == (reason == "DatasetInvalid")
    for refusal in (CLASS_NOT_FOUND, LIMIT_EXCEEDED):
        refused = decide(observed_job(refused_before(retry_in=0), class_=refusal))
        assert refused.decision.reason == refusal.reason
        assert f"The previous try failed: DatasetInvalid: {LINE_7.message}" in refused.message
        assert refused.message.count("requires a new runId") == 1


def test_the_next_try_keeps_the_diagnosis_until_it_has_an_answer() -> None:
    started = decide(observed_job(refused_before(retry_in=0), job(PREFLIGHT_1, "Failed")))
    assert started.decision == Decision(
        "Validating", "DatasetInvalid", stalled=True, writes=PREFLIGHT_2_OBJECTS, again_in=15
    )
    assert started.message == f"{LINE_7.message} The next try has started."
    running = decide(observed_job(started.status, job(PREFLIGHT_2), pods=(pod(PREFLIGHT_2),)))
    assert running.decision == Decision("Validating", "DatasetInvalid", stalled=True, again_in=15)


ROOM_LATER = "0/3 nodes are available: 3 Insufficient cpu."


@pytest.mark.parametrize("seconds", [0, 5, 29, 31, 600])
def test_a_retry_after_a_failure_is_validating_with_its_diagnosis_however_long_its_pod_waits(seconds: int) -> None:
    """It is never Queued: that would hide, for some seconds, what a person has to mend."""
    started = decide(observed_job(refused_before(retry_in=0), job(PREFLIGHT_1, "Failed"))).status
    waits = pod(PREFLIGHT_2, phase="Pending", unschedulable_since=ago(seconds), unschedulable_message=ROOM_LATER)
    for pods in ((), (pod(PREFLIGHT_2, phase="Pending"),), (waits,)):
        decision = decide(observed_job(started, job(PREFLIGHT_2), pods=pods)).decision
        assert (decision.phase, decision.reason, decision.stalled) == ("Validating", "DatasetInvalid", True)


@pytest.mark.parametrize(("seconds", "shown"), [(5, "Validating"), (31, "Queued")])
def test_without_a_failure_a_preflight_that_waits_for_room_is_queued(seconds: int, shown: str) -> None:
    """The first one, and one after a disruption: nobody has to mend anything."""
    waits = pod(PREFLIGHT_1, phase="Pending", unschedulable_since=ago(seconds), unschedulable_message=ROOM_LATER)
    observed = observed_job(job_status(preflight=preflight_status()), job(PREFLIGHT_1), pods=(waits,))
    decision = decide(observed).decision
    assert (decision.phase, decision.reason, decision.stalled) == (shown, shown, False)


@pytest.mark.parametrize(
    ("readiness", "class_"),
    [
        (earlier_conditions(Reason.CLASS_NOT_FOUND, stalled=True), None),
        (earlier_conditions(Reason.LIMIT_EXCEEDED, stalled=True), None),
        (earlier_conditions(Reason.SUSPENDED), None),
        (earlier_conditions(Reason.SECRET_NOT_FOUND, stalled=True), None),
    ],
    ids=["class was missing", "limit was exceeded", "was suspended", "Secret was missing"],
)
def test_the_diagnosis_returns_once_another_problem_has_passed(readiness: list[Any], class_: Readiness | None) -> None:
    waiting = observed_job(refused_before(retry_in=7, conditions=readiness), job(PREFLIGHT_1, "Failed"))
    assert decide(waiting).decision.reason == "DatasetInvalid"
    second = preflight_status(try_number=2, job_name=PREFLIGHT_2)
    retrying = observed_job(refused_before(0, preflight=second, conditions=readiness), job(PREFLIGHT_2))
    assert decide(retrying).decision.reason == "DatasetInvalid"


@pytest.mark.parametrize(("tries", "seconds"), [(1, 10), (2, 20), (3, 40), (7, 600), (100, 600)])
def test_preflight_is_tried_ever_more_slowly(tries: int, seconds: float) -> None:
    status = job_status(preflight=preflight_status(try_number=tries))
    observed = observed_job(status, job(PREFLIGHT_1, "Failed"), pods=(failed_pod(PREFLIGHT_1, NETWORK_FAILURE),))
    assert decide(observed).decision.again_in == seconds


def test_a_good_preflight_resolves_the_hyperparameters_and_starts_the_first_attempt() -> None:
    before = refused_before(0, preflight=preflight_status(try_number=2, job_name=PREFLIGHT_2))
    observed = observed_job(
        before,
        job(PREFLIGHT_1, "Failed"),
        job(PREFLIGHT_2, "Complete"),
        pods=(succeeded_pod(PREFLIGHT_2, PREFLIGHT_REPORT),),
    )
    result = decide(observed)
    assert result.decision == Decision("Queued", "Queued", writes=TRAIN_OBJECTS, again_in=15, event="Normal Queued")
    assert result.status.resolved == RESOLVED
    assert result.status.dataset == PREFLIGHT_REPORT.dataset
    assert result.status.model == PREFLIGHT_REPORT.model
    assert result.status.failure is None
    assert result.status.preflight.succeeded


def test_what_the_preflight_pod_said_is_not_waited_for_until_its_job_is_counted() -> None:
    before = job_status(preflight=preflight_status())
    said = succeeded_pod(PREFLIGHT_1, PREFLIGHT_REPORT)
    result = decide(observed_job(before, job(PREFLIGHT_1), pods=(said,)))
    assert result.status.preflight.succeeded
    assert result.decision == Decision("Queued", "Queued", writes=TRAIN_OBJECTS, again_in=15)


@pytest.mark.parametrize(
    ("state", "changes"),
    [("Failed", {}), ("Active", {"job_uid": "uid-of-another-job"}), ("Active", {"phase": "Failed", "exit_code": 1})],
    ids=["its Job failed", "another Job's Pod", "a Pod that failed"],
)
def test_a_preflight_succeeds_by_a_pod_of_its_own_that_ended_well(state: Any, changes: dict[str, Any]) -> None:
    said = replace(succeeded_pod(PREFLIGHT_1, PREFLIGHT_REPORT), **changes)
    result = decide(observed_job(job_status(preflight=preflight_status()), job(PREFLIGHT_1, state), pods=(said,)))
    assert not result.status.preflight.succeeded
    assert result.decision.phase == "Validating"


def test_an_image_that_is_not_the_trainer_is_named() -> None:
    silent = pod(PREFLIGHT_1, phase="Succeeded", exit_code=0, message="hello")
    observed = observed_job(job_status(preflight=preflight_status()), job(PREFLIGHT_1, "Complete"), pods=(silent,))
    result = decide(observed)
    assert result.decision.reason == "Failed"
    assert "left no report" in result.message
    assert "spec.images.trainer of the FineTuneClass" in result.message


def test_of_the_jobs_that_ended_three_are_kept_for_their_logs() -> None:
    ended = [job(f"try-{number}", "Failed", created=ago(600 - number)) for number in range(5)]
    result = decide(observed_job(refused_before(retry_in=0), *ended))
    assert result.decision.deletes == (*of_job("try-0"), *of_job("try-1"))
