"""FineTuneJob, how an attempt ends: failures, which count, and disruptions, which do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Progress
from finetune_api.pod_contracts.outcome import Failure
from finetune_operator.pods.observed import PodView
from tests.unit.operator.finetunejob.attempts.attempt_states import (
    EXIT_1,
    PROGRESS,
    QUEUED_STATUS,
    TRAINING,
    decide,
    evicted,
    gang,
    told_to_stop,
)
from tests.unit.operator.states import (
    LOSS_NOT_FINITE,
    LOST_PEER,
    NETWORK_FAILURE,
    NOW,
    TRAIN_1,
    Decided,
    Decision,
    ago,
    attempt_status,
    ended_attempt,
    failed_pod,
    job,
    job_spec,
    later,
    observed_job,
    pod,
    trained_status,
)

FIRST_RETRY = Decision("Retrying", "Retrying", again_in=10, event="Normal Retrying")
NEXT_AT_ONCE = Decision("Retrying", "Retrying", again_in=1, event="Normal Retrying")


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
            f"Pod {TRAIN_1}-0-abcde was disrupted (PreemptionByScheduler: a Pod of higher priority).",
        ),
        ((told_to_stop(0), told_to_stop(1)), "PodTerminated", f"Pod {TRAIN_1}-0-abcde was told to stop (SIGTERM)."),
        ((), "PodTerminated", "A Pod of the attempt has disappeared."),
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
    after = decide(gang("Failed", told_to_stop(0), told_to_stop(1), status=status)).status
    assert [ended.number for ended in after.ended_attempts] == list(range(2, 12))
    assert after.earlier_attempts_seconds == before[0].pod_seconds > 0, "what it cost is kept"


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
    assert f"Pod {lost.name} does not terminate: its node does not respond." in given_up.message


def test_a_pod_that_is_given_up_on_brings_nobody_back_while_another_still_runs() -> None:
    failed, lost = failed_pod(TRAIN_1, LOST_PEER), pod(TRAIN_1, 1, deletion_time=ago(200))
    assert decide(gang("Failed", failed, lost, pod(TRAIN_1, 2))).decision == Decision("Training", "Training")
    ends = pod(TRAIN_1, 2, deletion_time=ago(170))
    assert decide(gang("Failed", failed, lost, ends)).decision == Decision("Training", "Training", again_in=10)


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


def test_between_attempts_no_time_is_left_over_from_the_last_one() -> None:
    seen = Progress(
        step=3,
        total_steps=9,
        percent=33,
        estimated_remaining_seconds=90,
        estimated_remaining="90s",
        last_updated_time=NOW,
    )
    hang = Failure(reason=Reason.NCCL_TIMEOUT, message="No answer.", retryable=True)
    ended = gang("Failed", failed_pod(TRAIN_1, hang), told_to_stop(1))
    reported = replace(ended, progress=seen)
    waits = decide(reported)
    later_on = decide(replace(reported, status=waits.status))
    for result in (waits, later_on):
        assert result.decision.phase == "Retrying"
        assert result.status.progress is not None
        assert (result.status.progress.percent, result.status.progress.estimated_remaining) == (33, None)


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
    assert unpullable(899).message.endswith("The run fails if this lasts 15 minutes.")
    ended = unpullable(900)
    assert ended.decision == Decision(
        "Failed", "ImagePullFailed", stalled=True, again_in=0, event="Warning ImagePullFailed"
    )
    assert ended.message.endswith("The kubelet has tried for 15 minutes. Change runId to run again.")
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
        assert f"more often than retryLimit {limit}" in result.message
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
    told = f"in a row were disrupted, the last one without progress, so it waits until {later(again_in):%H:%M:%S} UTC."
    assert (told in result.message) == (again_in > 5)


def test_an_attempt_that_ran_long_is_followed_at_once_though_it_reported_nothing() -> None:
    """Of an image without reports nobody knows how far it came."""
    ended = [ended_attempt(number, "Disrupted") for number in range(1, 9)]
    status = trained_status(attempt_status(number=9, start_time=ago(700)), conditions=TRAINING, ended_attempts=ended)
    result = decide(observed_job(status, job(TRAIN_1, "Failed"), pods=(evicted(0),)))
    assert result.decision.again_in == 1


def test_a_failure_between_them_restarts_the_row() -> None:
    ended = [ended_attempt(1, "Disrupted"), ended_attempt(2, "Disrupted"), ended_attempt(3, "Failed")]
    status = trained_status(attempt_status(number=4, start_time=ago(5)), conditions=TRAINING, ended_attempts=ended)
    assert decide(observed_job(status, job(TRAIN_1, "Failed"), pods=(evicted(0),))).decision.again_in == 5
