"""FineTuneJob, attempts at training: queue, progress, failures, disruptions, the result."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import CorruptCheckpoint, FineTuneJobSpec, FineTuneJobStatus, Progress, StartingModel
from finetune_api.outcome import Failure, TrainReport
from finetune_api.progress import CheckpointLedger
from finetune_operator.budgets.observed import ObservedBudget
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.observed import PodView
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    CHECKPOINT,
    CLASS_NOT_FOUND,
    LOSS_NOT_FINITE,
    LOST_PEER,
    NETWORK_FAILURE,
    NOW,
    RESULT,
    STORAGE_URI,
    TRAIN_1,
    TRAIN_2,
    TRAIN_REPORT,
    Decided,
    Decision,
    ago,
    attempt_status,
    decided,
    earlier_conditions,
    ended_attempt,
    failed_pod,
    job,
    job_spec,
    later,
    observed_job,
    pod,
    resolved_class,
    succeeded_pod,
    told,
    trained_status,
    with_config_map,
)

TWO_NODES = job_spec(parallelism={"nodes": 2})
TRAIN_2_OBJECTS = (f"ConfigMap/{TRAIN_2}", f"Job/{TRAIN_2}")
PROGRESS = Progress(
    step=30, total_steps=750, percent=4, loss=2.5, estimated_remaining_seconds=600, last_updated_time=ago(1)
)
TRAINING = earlier_conditions(Reason.TRAINING)


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def gang(state: Any, *pods: PodView, status: FineTuneJobStatus | None = None, **changes: Any) -> ObservedFineTuneJob:
    """The first attempt on two nodes."""
    before = status or trained_status(conditions=TRAINING)
    return observed_job(before, job(TRAIN_1, state, parallelism=2), pods=pods, spec=TWO_NODES, **changes)


def told_to_stop(index: int) -> PodView:
    return pod(TRAIN_1, index, "Failed", exit_code=143)


def evicted(index: int, **changes: Any) -> PodView:
    return pod(TRAIN_1, index, "Failed", exit_code=143, disrupted=True, **changes)


# Waiting and running.

QUEUED_STATUS = trained_status(phase="Queued", conditions=earlier_conditions(Reason.QUEUED))
STILL_QUEUED = Decision("Queued", "Queued", again_in=15)
NOW_TRAINING = Decision("Training", "Training", event="Normal Training")


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ((), STILL_QUEUED),
        ((pod(TRAIN_1, 0),), STILL_QUEUED),
        ((pod(TRAIN_1, 0), pod(TRAIN_1, 1, "Pending")), STILL_QUEUED),
        ((pod(TRAIN_1, 0), pod(TRAIN_1, 1)), NOW_TRAINING),
        ((pod(TRAIN_1, 0, "Succeeded"), pod(TRAIN_1, 1)), NOW_TRAINING),
        ((pod(TRAIN_1, 0, "Failed"), pod(TRAIN_1, 1)), NOW_TRAINING),
        (
            (pod(TRAIN_1, 0), pod(TRAIN_1, 1, "Pending", unschedulable_since=ago(31))),
            Decision("Queued", "Unschedulable", stalled=True, again_in=15, event="Warning Unschedulable"),
        ),
        (
            (pod(TRAIN_1, 0), pod(TRAIN_1, 1, "Pending", waiting_reason="ErrImagePull")),
            Decision("Queued", "ImagePullFailed", stalled=True, again_in=15, event="Warning ImagePullFailed"),
        ),
    ],
    ids=[
        "no Pods",
        "one of two Pods",
        "one Pod starts",
        "both run",
        "one is done first",
        "one has failed and the Job ends",
        "no room for one",
        "no image for one",
    ],
)
def test_a_gang_trains_when_all_its_pods_run(pods: tuple[PodView, ...], expected: Decision) -> None:
    assert decide(gang("Active", *pods, status=QUEUED_STATUS)).decision == expected


def test_what_a_pod_of_the_gang_waits_for_is_said_before_it_is_a_blockage() -> None:
    waiting = pod(TRAIN_1, 1, "Pending", unschedulable_since=ago(28), unschedulable_message="0/1 nodes are available.")
    result = decide(gang("Active", pod(TRAIN_1, 0), waiting, status=QUEUED_STATUS))
    assert result.decision == STILL_QUEUED
    assert f"Pod {waiting.name} finds no node: 0/1 nodes are available." in result.message


@pytest.mark.parametrize("pods", [(), (pod(TRAIN_1, 0),)], ids=["both Pods vanished", "one Pod vanished"])
def test_a_gang_that_has_trained_is_not_queued_again_while_its_pods_vanish(pods: tuple[PodView, ...]) -> None:
    """The Job controller takes the others away when one has ended; what it was is known when the Job has ended."""
    assert decide(gang("Active", *pods)).decision == Decision("Training", "Training")


def test_a_gang_of_which_one_has_ended_says_what_it_waits_for() -> None:
    ending = job(TRAIN_1, parallelism=2, ending=True)
    observed = observed_job(trained_status(conditions=TRAINING), ending, pods=(pod(TRAIN_1, 1),), spec=TWO_NODES)
    result = decide(observed)
    assert result.decision == Decision("Training", "Training")
    assert result.message == "Attempt 1 has ended on a node; waits until its Pods have ended on the others."


def test_when_the_first_pod_began_to_run_is_remembered() -> None:
    pods = (pod(TRAIN_1, 0, started_time=ago(7)), pod(TRAIN_1, 1, started_time=ago(9)))
    assert decide(gang("Active", *pods)).status.attempt.pods_start_time == ago(9)
    before = trained_status(attempt_status(pods_start_time=ago(50)), conditions=TRAINING)
    assert decide(gang("Active", *pods, status=before)).status.attempt.pods_start_time == ago(50)


def test_the_newest_progress_report_is_shown() -> None:
    running = (pod(TRAIN_1, 0), pod(TRAIN_1, 1))
    shown = PROGRESS.model_copy(update={"estimated_remaining": "10m"})
    assert decide(gang("Active", *running, progress=PROGRESS)).status.progress == shown
    restarted = gang("Active", *running, status=trained_status(progress=shown))
    assert decide(restarted).status.progress == shown


LEDGER = CheckpointLedger(
    checkpoints=[CHECKPOINT],
    corrupt=[CorruptCheckpoint(step=100, message="one file is short")],
    checkpoint_seconds=40.5,
)


def test_the_checkpoint_ledger_is_shown_and_the_longest_save_is_remembered() -> None:
    running = (pod(TRAIN_1, 0), pod(TRAIN_1, 1))
    status = decide(gang("Active", *running, ledger=LEDGER)).status
    assert (status.checkpoints, status.corrupt_checkpoints) == ([CHECKPOINT], LEDGER.corrupt)
    assert status.checkpoint_seconds == 40.5
    slower = trained_status(conditions=TRAINING, checkpoint_seconds=90.0)
    assert decide(gang("Active", *running, ledger=LEDGER, status=slower)).status.checkpoint_seconds == 90.0


def test_a_ledger_of_any_length_fits_the_status() -> None:
    ledger = CheckpointLedger(
        checkpoints=[CHECKPOINT.model_copy(update={"step": n}) for n in range(100)],
        corrupt=[CorruptCheckpoint(step=n, message="x") for n in range(20)],
    )
    longer = ledger.model_copy(update={"checkpoints": ledger.checkpoints * 2, "corrupt": ledger.corrupt * 2})
    status = decide(gang("Active", pod(TRAIN_1), pod(TRAIN_1, 1), ledger=longer)).status
    assert (len(status.checkpoints), len(status.corrupt_checkpoints)) == (100, 20)


def test_a_job_that_an_earlier_run_left_running_is_ended() -> None:
    stray = job("router-train-of-before")
    observed = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1), stray, pods=(pod(TRAIN_1),))
    assert decide(observed).decision == Decision("Training", "Training", deletes=with_config_map(stray.name))


# The end of an attempt.

FIRST_RETRY = Decision("Retrying", "Retrying", again_in=10, event="Normal Retrying")
NEXT_AT_ONCE = Decision("Retrying", "Retrying", again_in=1, event="Normal Retrying")
EXIT_1: dict[str, Any] = {"phase": "Failed", "exit_code": 1}


@pytest.mark.parametrize(
    ("pods", "expected", "counted"),
    [
        ((failed_pod(TRAIN_1, NETWORK_FAILURE), told_to_stop(1)), FIRST_RETRY, "retries"),
        ((pod(TRAIN_1, 0, **EXIT_1, message="Segmentation fault"), pod(TRAIN_1, 1, **EXIT_1)), FIRST_RETRY, "retries"),
        (
            (pod(TRAIN_1, 0, "Failed", exit_code=137, oom_killed=True), pod(TRAIN_1, 1, "Failed")),
            FIRST_RETRY,
            "retries",
        ),
        ((failed_pod(TRAIN_1, LOST_PEER), failed_pod(TRAIN_1, LOST_PEER, 1)), FIRST_RETRY, "retries"),
        ((failed_pod(TRAIN_1, LOST_PEER), pod(TRAIN_1, 1, **EXIT_1)), FIRST_RETRY, "retries"),
        ((pod(TRAIN_1, 0, **EXIT_1), evicted(1)), NEXT_AT_ONCE, "disruptions"),
        ((failed_pod(TRAIN_1, LOST_PEER), evicted(1)), NEXT_AT_ONCE, "disruptions"),
        ((failed_pod(TRAIN_1, LOST_PEER), told_to_stop(1)), NEXT_AT_ONCE, "disruptions"),
        ((failed_pod(TRAIN_1, LOST_PEER),), NEXT_AT_ONCE, "disruptions"),
        ((pod(TRAIN_1, 0, **EXIT_1),), FIRST_RETRY, "retries"),
        (
            (told_to_stop(0), told_to_stop(1)),
            NEXT_AT_ONCE,
            "disruptions",
        ),
        ((pod(TRAIN_1, 0, "Failed"), pod(TRAIN_1, 1, "Failed")), NEXT_AT_ONCE, "disruptions"),
        ((), NEXT_AT_ONCE, "disruptions"),
    ],
    ids=[
        "storage did not answer",
        "crash without a diagnosis",
        "out of memory",
        "each blames the other",
        "a rank lost its peer, which crashed",
        "one Pod was evicted",
        "a rank lost its peer, which was evicted",
        "a rank lost its peer, which was told to stop",
        "a rank lost its peer, which is gone",
        "a rank crashed without a word, and the Job controller took the other away",
        "both were told to stop",
        "both were rejected by their nodes",
        "both are gone",
    ],
)
def test_failures_of_training_count_and_disruptions_do_not(
    pods: tuple[PodView, ...], expected: Decision, counted: str
) -> None:
    result = decide(gang("Failed", *pods))
    assert result.decision == expected
    attempt = result.status.attempt
    assert {"retries": attempt.retries, "disruptions": attempt.disruptions} == {
        "retries": 0,
        "disruptions": 0,
        counted: 1,
    }


@pytest.mark.parametrize(
    ("pods", "reason", "message"),
    [
        ((failed_pod(TRAIN_1, NETWORK_FAILURE),), "StorageUnreachable", "The storage did not answer."),
        (
            (evicted(0, disruption="PreemptionByScheduler: a Pod of higher priority"), told_to_stop(1)),
            "PreemptionByScheduler",
            f"Pod {TRAIN_1}-0-abcde was taken away (PreemptionByScheduler: a Pod of higher priority).",
        ),
        ((told_to_stop(0), told_to_stop(1)), "PodTerminated", f"Pod {TRAIN_1}-0-abcde was told to stop."),
        ((), "PodTerminated", "A Pod of the attempt is gone."),
    ],
)
def test_every_attempt_that_ended_is_recorded_with_its_last_step(
    pods: tuple[PodView, ...], reason: str, message: str
) -> None:
    result = decide(gang("Failed", *pods, progress=PROGRESS))
    (ended,) = result.status.ended_attempts
    outcome = "Failed" if reason == "StorageUnreachable" else "Disrupted"
    assert (ended.number, ended.outcome, ended.reason, ended.message) == (1, outcome, reason, message)
    assert (ended.start_time, ended.end_time, ended.step) == (ago(60), NOW, 30)


def test_the_step_of_an_earlier_attempt_is_not_taken_for_its_own() -> None:
    stale = PROGRESS.model_copy(update={"last_updated_time": ago(61)})
    status = trained_status(conditions=TRAINING, progress=stale)
    (ended,) = decide(gang("Failed", *(told_to_stop(0), told_to_stop(1)), status=status)).status.ended_attempts
    assert ended.step is None


def test_of_the_records_of_attempts_ten_are_kept() -> None:
    before = [ended_attempt(number) for number in range(1, 11)]
    status = trained_status(attempt_status(number=11), conditions=TRAINING, ended_attempts=before)
    kept = decide(gang("Failed", told_to_stop(0), told_to_stop(1), status=status)).status.ended_attempts
    assert [ended.number for ended in kept] == list(range(2, 12))


@pytest.mark.parametrize("other", [pod(TRAIN_1, 1), pod(TRAIN_1, 1, deletion_time=ago(179))], ids=["runs", "ends"])
def test_an_attempt_is_judged_when_all_its_pods_have_ended(other: PodView) -> None:
    """The one that failed first is not always the one that tells why."""
    assert decide(gang("Failed", failed_pod(TRAIN_1, LOST_PEER), other)).decision.phase == "Training"


def test_a_pod_of_a_lost_node_is_not_waited_for_for_ever() -> None:
    """It stays Terminating; so the Job never ends."""
    lost = pod(TRAIN_1, 1, deletion_time=ago(179))
    waits = decide(gang("Active", pod(TRAIN_1), lost))
    assert waits.decision == Decision("Training", "Training", again_in=1)
    given_up = decide(gang("Active", pod(TRAIN_1), pod(TRAIN_1, 1, deletion_time=ago(180))))
    assert (given_up.decision.phase, given_up.status.ended_attempts[-1].reason) == ("Retrying", "NodeLost")
    assert given_up.status.attempt.disruptions == 1
    assert f"Pod {lost.name} does not end: its node does not answer." in given_up.message


def test_a_failure_counts_though_the_pods_that_it_takes_along_do_not_end() -> None:
    """The Job controller told them to end because of it; that their node then fell silent is no disruption."""
    lost = pod(TRAIN_1, 1, deletion_time=ago(180))
    counted = decide(gang("Active", failed_pod(TRAIN_1, NETWORK_FAILURE), lost)).status
    assert (counted.attempt.retries, counted.attempt.disruptions) == (1, 0)
    assert counted.ended_attempts[-1].reason == NETWORK_FAILURE.reason
    for symptom in (LOST_PEER, Failure(reason=Reason.NCCL_TIMEOUT, message="No answer.", rank=0)):
        waited = decide(gang("Active", failed_pod(TRAIN_1, symptom), lost)).status
        assert waited.ended_attempts[-1].reason == "NodeLost", symptom
    taken = replace(lost, disrupted=True)
    assert decide(gang("Active", failed_pod(TRAIN_1, NETWORK_FAILURE), taken)).status.attempt.disruptions == 1


def test_a_failure_says_what_happened_and_when_it_goes_on() -> None:
    result = decide(gang("Failed", failed_pod(TRAIN_1, NETWORK_FAILURE), told_to_stop(1)))
    assert result.message == (
        "Attempt 1 failed (StorageUnreachable: The storage did not answer.) Retry 1 of 3 starts at 12:00:10 UTC from "
        "the newest checkpoint."
    )
    assert (result.status.failure.reason, result.status.failure.rank) == ("StorageUnreachable", 0)


def test_a_failure_that_cannot_heal_ends_the_run() -> None:
    result = decide(gang("Failed", failed_pod(TRAIN_1, LOST_PEER), failed_pod(TRAIN_1, LOSS_NOT_FINITE, 1)))
    assert result.decision == Decision(
        "Failed", "LossNotFinite", stalled=True, again_in=0, event="Warning LossNotFinite"
    )
    assert result.message == f"{LOSS_NOT_FINITE.message} Change spec.runId to run again."
    assert result.status.completion_time == NOW


@pytest.mark.parametrize("memory", [Reason.CUDA_OUT_OF_MEMORY, Reason.OUT_OF_MEMORY])
@pytest.mark.parametrize(
    ("earlier", "ends"),
    [([], False), (["StorageUnreachable"], False), (["same"], True), (["same", "StorageUnreachable"], True)],
)
def test_memory_that_does_not_suffice_twice_is_the_shape(memory: Reason, earlier: list[str], ends: bool) -> None:
    """Once it may have been fragmentation or a neighbour."""
    ended = [
        ended_attempt(number, reason=memory if why == "same" else why) for number, why in enumerate(earlier, start=1)
    ]
    attempt = attempt_status(number=len(earlier) + 1, retries=len(earlier))
    status = trained_status(attempt, conditions=TRAINING, ended_attempts=ended)
    answer = Failure(reason=memory, message="Out of memory.", suggestion="Lower batchSize.", retryable=True, rank=0)
    result = decide(gang("Failed", failed_pod(TRAIN_1, answer), told_to_stop(1), status=status))
    expected = ("Failed", memory) if ends else ("Retrying", "Retrying")
    assert (result.decision.phase, result.decision.reason) == expected


@pytest.mark.parametrize(
    "reason", [Reason.DATASET_INVALID, Reason.STORAGE_DENIED, Reason.CHECKPOINT_CORRUPT, Reason.MODEL_INVALID]
)
def test_what_cannot_heal_is_not_tried_again(reason: Reason) -> None:
    answer = Failure(reason=reason, message="What happened.", suggestion="What to change.")
    result = decide(gang("Failed", failed_pod(TRAIN_1, answer), told_to_stop(1)))
    assert result.decision == Decision("Failed", reason, stalled=True, again_in=0, event=f"Warning {reason}")
    assert result.message == "What happened. What to change. Change spec.runId to run again."
    assert result.status.ended_attempts[-1].outcome == "Failed"


@pytest.mark.parametrize("reason", [Reason.NCCL_TIMEOUT, Reason.TRAINING_STALLED])
def test_a_hang_is_a_failure_that_is_tried_again(reason: Reason) -> None:
    answer = Failure(reason=reason, message="Rank 1 made no step for 300 s.", retryable=True)
    result = decide(gang("Failed", failed_pod(TRAIN_1, answer), told_to_stop(1)))
    assert (result.decision.phase, result.status.ended_attempts[-1].reason) == ("Retrying", reason)
    assert result.status.attempt.retries == 1


def test_an_image_that_can_not_be_pulled_for_fifteen_minutes_ends_the_run() -> None:
    def unpullable(seconds: float) -> Decided:
        waits = pod(TRAIN_1, 0, "Pending", waiting_reason="ImagePullBackOff", scheduled_time=ago(seconds))
        return decide(gang("Active", waits, pod(TRAIN_1, 1, "Pending"), status=QUEUED_STATUS))

    assert unpullable(899).decision.phase == "Queued"
    ended = unpullable(900)
    assert ended.decision == Decision(
        "Failed", "ImagePullFailed", stalled=True, again_in=0, event="Warning ImagePullFailed"
    )
    assert ended.message.endswith("It was tried for 15 minutes; change runId to run again.")
    (record,) = ended.status.ended_attempts
    assert (record.outcome, record.reason) == ("Failed", "ImagePullFailed")


@pytest.mark.parametrize(("limit", "retries", "phase"), [(0, 0, "Failed"), (3, 2, "Retrying"), (3, 3, "Failed")])
def test_training_fails_for_good_when_retry_limit_is_used_up(limit: int, retries: int, phase: str) -> None:
    observed = observed_job(
        trained_status(attempt_status(retries=retries)),
        job(TRAIN_1, "Failed"),
        pods=(failed_pod(TRAIN_1, NETWORK_FAILURE),),
        spec=job_spec(retryLimit=limit),
    )
    result = decide(observed)
    assert result.decision.phase == phase
    if phase == "Failed":
        assert result.decision.reason == "RetryLimitReached"
        assert f"more than retryLimit {limit}" in result.message
        assert NETWORK_FAILURE.message in result.message


@pytest.mark.parametrize(
    ("pods", "phase", "counted"),
    [
        ((), "Retrying", (0, 1)),
        ((pod(TRAIN_1, 0, "Succeeded", exit_code=0, message="done"),), "Retrying", (1, 0)),
    ],
    ids=["the Pods are gone", "the image leaves no report"],
)
def test_a_job_that_completes_without_a_report_is_run_again(
    pods: tuple[PodView, ...], phase: str, counted: tuple[int, int]
) -> None:
    """Without a limit only where the Pods are gone: an image that never reports must not train for ever."""
    result = decide(observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=pods))
    assert result.decision.phase == phase
    assert (result.status.attempt.retries, result.status.attempt.disruptions) == counted


def test_a_job_that_somebody_deleted_is_a_disruption() -> None:
    result = decide(observed_job(trained_status(conditions=TRAINING)))
    assert result.decision == NEXT_AT_ONCE
    assert result.message == (
        "Attempt 1 was disrupted (JobDeleted: Somebody deleted its Job.) The next one resumes from the newest "
        "checkpoint."
    )


def test_nothing_starts_beside_a_job_whose_owner_references_were_removed() -> None:
    """Its Pods train on: a second attempt beside them would take the run from them."""
    theirs, running = job(TRAIN_1), pod(TRAIN_1)
    result = decide(observed_job(trained_status(conditions=TRAINING), pods=(running,), disowned=(theirs,)))
    ended = result.status.ended_attempts[-1]
    assert (ended.outcome, ended.reason) == ("Disrupted", "JobDisowned")
    due = result.status.model_copy(
        update={"attempt": result.status.attempt and result.status.attempt.model_copy(update={"next_time": ago(1)})}
    )
    waits = decide(observed_job(due, pods=(running,), disowned=(theirs,)))
    assert waits.decision == Decision("Retrying", "Retrying", again_in=15)
    assert f"kubectl delete job {TRAIN_1}" in waits.message
    no_pods_yet = decide(observed_job(due, disowned=(theirs,)))
    assert no_pods_yet.decision == waits.decision
    for gone in (
        observed_job(due),
        observed_job(due, pods=(pod(TRAIN_1, phase="Succeeded"),), disowned=(theirs,)),
        observed_job(due, disowned=(job(TRAIN_1, "Failed"),)),
        observed_job(due, job(TRAIN_1), disowned=()),
    ):
        assert decide(gone).decision.writes == (() if gone.jobs else TRAIN_2_OBJECTS)


@pytest.mark.parametrize("spec", [job_spec(suspend=True), job_spec(runId="2")])
def test_a_job_that_is_nobodys_is_waited_for_whatever_follows(spec: FineTuneJobSpec) -> None:
    status = trained_status(conditions=TRAINING)
    waits = decide(observed_job(status, pods=(pod(TRAIN_1),), disowned=(job(TRAIN_1),), spec=spec))
    assert waits.decision.reason == "Stopping"
    assert (waits.decision.writes, waits.decision.deletes) == ((), ())
    assert f"kubectl delete job {TRAIN_1}" in waits.message


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    observed = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1, deleting=True))
    assert decide(observed).decision == Decision("Retrying", "Retrying", event="Normal Retrying")


def test_attempts_that_are_disrupted_at_once_are_kept_apart() -> None:
    status = trained_status(attempt_status(start_time=ago(3)), conditions=TRAINING)
    assert decide(observed_job(status, job(TRAIN_1, "Failed"))).decision.again_in == 7


def evicted_again(steps: list[int | None], **changes: Any) -> Decided:
    """The newest attempt is evicted; `steps` are what each so far came to, it included."""
    *before, last = steps
    ended = [ended_attempt(number, "Disrupted", step=step) for number, step in enumerate(before, 1)]
    attempt = attempt_status(number=len(steps), start_time=ago(5))
    progress = None if last is None else PROGRESS.model_copy(update={"step": last})
    status = trained_status(attempt, conditions=TRAINING, ended_attempts=ended, progress=progress)
    return decide(observed_job(status, job(TRAIN_1, "Failed"), pods=(evicted(0),), **changes))


@pytest.mark.parametrize(
    ("steps", "again_in"),
    [
        ([None], 5),
        ([None, None], 15),
        ([None, None, None], 35),
        ([100, 100, 90], 35),
        ([None] * 10, 595),
        ([None, None, 1], 5),
        ([100, 100, 100, 101], 5),
        ([100, 101, 101], 15),
    ],
    ids=str,
)
def test_disruptions_without_progress_are_ever_further_apart_and_never_count(
    steps: list[int | None], again_in: float
) -> None:
    result = evicted_again(steps)
    assert result.decision.again_in == again_in
    assert (result.status.attempt.retries, result.status.phase) == (0, "Retrying")
    told = f"in a row were disrupted without progress: it starts at {later(again_in):%H:%M:%S} UTC."
    assert (told in result.message) == (again_in > 5)


def test_an_attempt_that_ran_long_is_followed_at_once_though_it_reported_nothing() -> None:
    """Of an image without reports nobody knows how far it came."""
    ended = [ended_attempt(number, "Disrupted") for number in range(1, 9)]
    status = trained_status(attempt_status(number=9, start_time=ago(700)), conditions=TRAINING, ended_attempts=ended)
    result = decide(observed_job(status, job(TRAIN_1, "Failed"), pods=(evicted(0),)))
    assert result.decision.again_in == 1


def test_a_failure_between_them_begins_the_row_anew() -> None:
    ended = [ended_attempt(1, "Disrupted"), ended_attempt(2, "Disrupted"), ended_attempt(3, "Failed")]
    status = trained_status(attempt_status(number=4, start_time=ago(5)), conditions=TRAINING, ended_attempts=ended)
    assert decide(observed_job(status, job(TRAIN_1, "Failed"), pods=(evicted(0),))).decision.again_in == 5


# The next attempt.


@pytest.mark.parametrize("storage", [{"bucket": "other"}, {"prefix": "elsewhere"}])
def test_a_run_keeps_its_place_in_the_storage_for_its_life(storage: dict[str, Any]) -> None:
    """Elsewhere it would begin at step 0, and its checkpoints would be nobody's."""
    moved = resolved_class(storage=storage)
    result = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed"), platform=moved))
    assert result.decision.writes == TRAIN_2_OBJECTS
    (config,) = [item for item in result.plan.create if item["kind"] == "ConfigMap"]
    assert json.loads(config["data"]["run.json"])["outputUri"] == STORAGE_URI
    assert result.status.storage_uri == STORAGE_URI


def test_a_class_that_names_another_place_makes_no_waiting_attempt_anew() -> None:
    started = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed")))
    (made,) = [item for item in started.plan.create if item["kind"] == "Job"]
    waiting = job(TRAIN_2, digest=made["metadata"]["annotations"]["finetune.dev/applied-digest"])
    moved = resolved_class(storage={"bucket": "other"})
    assert decide(observed_job(started.status, waiting, platform=moved)).decision.writes == ()


def test_a_result_is_judged_by_what_its_run_was_asked_though_the_next_run_is_asked_for() -> None:
    """It completes just as runId and model.uri change: nobody forged anything."""
    begun = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed"))).status
    assert begun.starting_model == StartingModel(uri="s3://models/base")
    spec = job_spec(runId="2", model={"uri": "s3://models/another"})
    done = decide(
        observed_job(begun, job(TRAIN_2, "Complete"), pods=(succeeded_pod(TRAIN_2, TRAIN_REPORT),), spec=spec)
    )
    assert (done.status.phase, done.status.result) == ("Succeeded", RESULT)
    (run,) = plan(observed_job(done.status, spec=spec), NOW).status.history
    assert (run.phase, run.result_uri) == ("Succeeded", RESULT.uri)


def between_attempts(retry_in: float, **changes: Any) -> FineTuneJobStatus:
    status = plan(gang("Failed", failed_pod(TRAIN_1, NETWORK_FAILURE)), NOW).status
    assert status.attempt is not None
    attempt = status.attempt.model_copy(update={"next_time": later(retry_in), **changes})
    return status.model_copy(update={"attempt": attempt})


def test_until_its_time_the_next_attempt_waits() -> None:
    observed = observed_job(between_attempts(retry_in=7), job(TRAIN_1, "Failed"))
    assert decide(observed).decision == Decision("Retrying", "Retrying", again_in=7)


def test_the_next_attempt_has_its_own_objects_and_remembers_the_counts() -> None:
    observed = observed_job(between_attempts(0, disruptions=2), job(TRAIN_1, "Failed"))
    result = decide(observed)
    assert result.decision == Decision("Queued", "Queued", writes=TRAIN_2_OBJECTS, again_in=15, event="Normal Queued")
    attempt = result.status.attempt
    assert (attempt.number, attempt.job_name, attempt.retries, attempt.disruptions) == (2, TRAIN_2, 1, 2)
    assert (attempt.class_generation, attempt.start_time, attempt.next_time) == (4, NOW, None)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (pod(TRAIN_1, 1), f"Waits until 1 Pod has saved and ended: {TRAIN_1}-1-abcde."),
        (pod(TRAIN_1, 1, phase="Pending"), f"Waits until 1 Pod has ended: {TRAIN_1}-1-abcde."),
        (
            pod(TRAIN_1, 1, deletion_time=later(40)),
            f"Waits until 1 Pod has saved and ended, by 12:00:40 UTC at the latest: {TRAIN_1}-1-abcde.",
        ),
        (
            pod(TRAIN_1, 1, deletion_time=ago(179)),
            f"Waits until 1 Pod has saved and ended, by 11:57:01 UTC at the latest: {TRAIN_1}-1-abcde.",
        ),
    ],
    ids=["not told to stop yet", "never started", "saves a checkpoint", "late"],
)
def test_two_attempts_never_run_side_by_side(left: PodView, told: str) -> None:
    """Though its Job is gone, a Pod may run: what counts are containers."""
    result = decide(observed_job(between_attempts(0), pods=(left,)))
    assert result.decision == Decision("Retrying", "Retrying", again_in=15)
    assert result.message == told


def test_the_next_attempt_does_not_wait_for_a_lost_node_and_says_so() -> None:
    lost = pod(TRAIN_1, 1, deletion_time=ago(180))
    started = decide(observed_job(between_attempts(0), pods=(lost,)))
    assert started.decision.writes == TRAIN_2_OBJECTS
    queued = decide(observed_job(started.status, job(TRAIN_2), pods=(lost,)))
    assert f"Not waited for any longer: {lost.name}, whose node does not answer" in queued.message


def test_a_job_that_is_still_active_is_ended_before_the_next_attempt() -> None:
    observed = observed_job(between_attempts(0), job(TRAIN_1))
    result = decide(observed)
    assert result.decision == Decision("Retrying", "Retrying", deletes=with_config_map(TRAIN_1), again_in=15)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"platform": CLASS_NOT_FOUND}, Reason.CLASS_NOT_FOUND),
        ({"platform": resolved_class(sources={"models": []})}, Reason.SOURCE_NOT_ALLOWED),
        (
            {"platform": resolved_class(limits={"nodes": 1}), "spec": TWO_NODES},
            Reason.LIMIT_EXCEEDED,
        ),
    ],
)
def test_a_changed_class_is_asked_before_each_attempt_and_leaves_a_running_one_alone(
    changes: dict[str, Any], reason: Reason
) -> None:
    waits = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed"), **changes))
    assert waits.decision == Decision("Retrying", reason, stalled=True, event=f"Warning {reason}")
    running = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1), pods=(pod(TRAIN_1),), **changes)
    assert decide(running).decision == Decision("Training", "Training")


def test_a_used_up_budget_keeps_the_next_attempt_until_it_renews() -> None:
    """The time of it does not count for the deadline."""
    platform = resolved_class(limits={"acceleratorHoursPerMonth": 1}, accelerator={})
    budget = ObservedBudget("finetune-system", (), "2026-11", "cpu", {"somebody": 3600})
    observed = observed_job(
        between_attempts(0),
        job(TRAIN_1, "Failed"),
        platform=platform,
        budget=budget,
        spec=job_spec(activeDeadlineSeconds=130),
    )
    result = decide(observed)
    until_december = (datetime(2026, 12, 1, tzinfo=UTC) - NOW).total_seconds()
    assert result.decision == Decision(
        "Retrying", "BudgetExceeded", stalled=True, again_in=until_december, event="Warning BudgetExceeded"
    )
    assert result.status.suspend_time == NOW
    renewed = replace(observed, status=result.status, budget=replace(budget, month="2026-12", ledger={}))
    december = decided(plan(renewed, datetime(2026, 12, 1, tzinfo=UTC)), datetime(2026, 12, 1, tzinfo=UTC))
    assert december.decision.writes == TRAIN_2_OBJECTS
    assert (december.status.suspend_time, december.status.suspended_seconds) == (None, until_december)
    assert december.decision.again_in == 130 - 120


def test_an_attempt_whose_status_was_lost_in_a_crash_is_not_made_twice() -> None:
    """The operator died between making the Job and writing the status: the same names come again."""
    status = between_attempts(0)
    first = plan(observed_job(status, job(TRAIN_1, "Failed")), NOW)
    again = plan(observed_job(status, job(TRAIN_1, "Failed"), job(TRAIN_2)), NOW + timedelta(seconds=5))
    assert again.create == first.create
    assert TRAIN_2 not in {child.name for child in again.delete}


def test_the_pods_of_a_job_that_was_made_in_vain_are_waited_for_before_it_is_made_again() -> None:
    """The operator died after making the Job, the run was suspended and resumed: its Pods still save."""
    result = decide(observed_job(between_attempts(0), pods=(pod(TRAIN_2, deletion_time=later(40)),)))
    assert result.decision == Decision("Retrying", "Retrying", again_in=15)


def test_a_pod_learns_where_to_report_and_whom_to_trust() -> None:
    endpoint = ProgressEndpoint("https://finetune.svc:8443/", "-----BEGIN CERTIFICATE-----")
    config_map, train_job = plan(observed_job(between_attempts(0), progress_endpoint=endpoint), NOW).create
    path = f"/v1alpha1/namespaces/team-a/finetunejobs/router/attempts/{TRAIN_2}"
    assert f'"url":"https://finetune.svc:8443{path}"' in config_map["data"]["run.json"]
    assert config_map["data"]["progress-ca.crt"] == endpoint.ca
    volumes = {volume["name"] for volume in train_job["spec"]["template"]["spec"]["volumes"]}
    assert "progress-token" in volumes


# The result.


def test_the_report_of_rank_0_is_the_result() -> None:
    status = trained_status(conditions=TRAINING, progress=PROGRESS)
    observed = observed_job(status, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),))
    result = decide(observed)
    assert result.decision == Decision("Succeeded", "Succeeded", ready=True, again_in=0, event="Normal Succeeded")
    assert result.message == f"The LoRA result of step 300 is in {RESULT.uri}. Validation loss 0.5000."
    assert result.status.result == RESULT
    assert result.status.checkpoints == [CHECKPOINT]
    assert result.status.completion_time == NOW
    assert [ended.outcome for ended in result.status.ended_attempts] == ["Succeeded"]
    assert (result.status.progress.percent, result.status.progress.estimated_remaining_seconds) == (100, 0)


def test_without_any_report_the_progress_is_complete_at_the_end() -> None:
    observed = observed_job(
        trained_status(conditions=TRAINING), job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),)
    )
    progress = decide(observed).status.progress
    assert (progress.step, progress.total_steps, progress.percent, progress.eval_loss) == (750, 750, 100, 0.5)


def test_the_losses_at_the_end_have_as_many_digits_as_those_before() -> None:
    losses = {"train_loss": 0.11446395516395569, "eval_loss": 1.2345678}
    report = TRAIN_REPORT.model_copy(update={"result": TRAIN_REPORT.result.model_copy(update=losses)})
    observed = observed_job(
        trained_status(conditions=TRAINING), job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, report),)
    )
    progress = decide(observed).status.progress
    assert (progress.loss, progress.eval_loss) == (0.11446, 1.2346)


def test_right_after_a_resume_the_remaining_time_is_that_of_the_speed_before() -> None:
    before = trained_status(conditions=TRAINING, progress=PROGRESS)
    resumed = PROGRESS.model_copy(update={"step": 390, "estimated_remaining_seconds": None})
    status = decide(gang("Active", pod(TRAIN_1), pod(TRAIN_1, 1), status=before, progress=resumed)).status
    assert status.progress.estimated_remaining_seconds == 300


def test_a_report_of_success_counts_only_where_the_job_completed() -> None:
    """The next attempt finds the committed result, and is done with it."""
    result = decide(gang("Failed", succeeded_pod(TRAIN_1, TRAIN_REPORT), evicted(1)))
    assert (result.decision.phase, result.status.result) == ("Retrying", None)
    assert [ended.outcome for ended in result.status.ended_attempts] == ["Disrupted"]


OTHERS = "s3://models/finetune/team-b/theirs/1-deadbeef"


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"uri": f"{OTHERS}/result"}, "its result's uri is 's3://models/finetune/team-b/theirs/1-deadbeef/result'"),
        ({"uri": f"{STORAGE_URI}/../../../team-b/theirs/result"}, "which is not in the run's folder"),
        ({"uri": f"{STORAGE_URI}-2/result"}, "which is not in the run's folder"),
        ({"uri": STORAGE_URI}, "which is not in the run's folder"),
        ({"report_uri": "https://example.com/report.html"}, "its result's reportUri is 'https://example.com/"),
        ({"base_model_uri": "s3://models/another"}, "and 's3://models/base' was to be tuned"),
    ],
)
def test_what_a_pod_reports_is_held_against_what_was_asked(claim: dict[str, Any], words: str) -> None:
    report = TRAIN_REPORT.model_copy(update={"result": RESULT.model_copy(update=claim)})
    observed = observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, report),))
    result = decide(observed)
    assert (result.decision.phase, result.decision.reason) == ("Failed", Reason.REPORT_REFUSED)
    assert words in result.message
    assert result.status.result is None


def test_a_report_of_another_job_of_the_same_name_is_not_heard() -> None:
    stranger = succeeded_pod(TRAIN_1, TRAIN_REPORT)
    observed = observed_job(
        trained_status(), job(TRAIN_1, "Complete"), pods=(replace(stranger, job_uid="uid-of-an-earlier-one"),)
    )
    result = decide(observed)
    assert (result.decision.phase, result.status.result) == ("Retrying", None)


def test_only_checkpoints_of_the_run_stand_in_its_status() -> None:
    theirs = CHECKPOINT.model_copy(update={"uri": f"{OTHERS}/checkpoints/step-000200"})
    ledger = CheckpointLedger(checkpoints=[theirs, CHECKPOINT])
    observed = observed_job(trained_status(), job(TRAIN_1), pods=(pod(TRAIN_1),), ledger=ledger)
    assert decide(observed).status.checkpoints == [CHECKPOINT]


def test_the_report_closes_the_ledger() -> None:
    report = TRAIN_REPORT.model_copy(
        update={"corrupt_checkpoints": [CorruptCheckpoint(step=100, message="x")], "checkpoint_seconds": 7.5}
    )
    before = trained_status(conditions=TRAINING, checkpoint_seconds=3.0)
    observed = observed_job(before, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, report),))
    status = decide(observed).status
    assert (status.corrupt_checkpoints, status.checkpoint_seconds) == (report.corrupt_checkpoints, 7.5)


def test_a_report_of_many_checkpoints_still_fits_the_status() -> None:
    report = TrainReport(result=RESULT, checkpoints=[CHECKPOINT.model_copy(update={"step": n}) for n in range(150)])
    ended = pod(TRAIN_1, 0, "Succeeded", exit_code=0, message=report.model_dump_json(by_alias=True))
    result = decide(observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=(ended,)))
    assert [checkpoint.step for checkpoint in result.status.checkpoints] == list(range(50, 150))


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity"])
def test_a_loss_that_is_no_number_is_left_out(loss: str) -> None:
    """Python's json writes NaN; the API server takes no such status."""
    message = told(TRAIN_REPORT).replace('"evalLoss":0.5', f'"evalLoss":{loss}')
    ended = pod(TRAIN_1, 0, "Succeeded", exit_code=0, message=message)
    result = decide(observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=(ended,)))
    assert (result.decision.phase, result.status.result.eval_loss) == ("Succeeded", None)


def test_a_failure_of_another_version_is_still_told() -> None:
    """A reason that this version does not know makes the message no report, and the run is not lost."""
    message = told(Failure(reason=Reason.FAILED, message="x")).replace('"Failed","message"', '"QuantumDecay","message"')
    observed = observed_job(
        trained_status(), job(TRAIN_1, "Failed"), pods=(pod(TRAIN_1, 0, **EXIT_1, message=message),)
    )
    assert decide(observed).decision.phase == "Retrying"
