"""FineTuneJob, attempts at training: queue, progress, failures, disruptions, the result."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, Progress
from finetune_api.outcome import Failure, TrainReport
from finetune_operator.finetunejob.observe import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pod_diagnosis import PodView
from finetune_operator.progress import ProgressEndpoint
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    CHECKPOINT,
    LOSS_NOT_FINITE,
    LOST_PEER,
    NETWORK_FAILURE,
    NOW,
    RENDEZVOUS,
    RESULT,
    TRAIN_1,
    TRAIN_2,
    TRAIN_REPORT,
    Decided,
    Decision,
    ago,
    attempt_status,
    decided,
    failed_pod,
    job,
    job_spec,
    later,
    observed_job,
    pod,
    resolved_class,
    standing_conditions,
    succeeded_pod,
    told,
    trained_status,
    with_config_map,
)

TWO_NODES = job_spec(parallelism={"nodes": 2})
TRAIN_2_OBJECTS = (f"ConfigMap/{TRAIN_2}", f"Service/{RENDEZVOUS}", f"Job/{TRAIN_2}")
PROGRESS = Progress(
    step=30, total_steps=750, percent=4, loss=2.5, estimated_remaining_seconds=600, last_updated_time=ago(1)
)
TRAINING = standing_conditions(Reason.TRAINING)


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def gang(state: Any, *pods: PodView, status: FineTuneJobStatus | None = None, **changes: Any) -> ObservedFineTuneJob:
    """The first attempt on two nodes."""
    before = status or trained_status(conditions=TRAINING)
    return observed_job(before, job(TRAIN_1, state), pods=pods, spec=TWO_NODES, **changes)


def told_to_stop(index: int) -> PodView:
    return pod(TRAIN_1, index, "Failed", exit_code=143)


def evicted(index: int) -> PodView:
    return pod(TRAIN_1, index, "Failed", exit_code=143, disrupted=True)


# Waiting and running.

STILL_QUEUED = Decision("Queued", "Queued", again_in=15, event="Normal Queued")
IN_TRAINING = Decision("Training", "Training")


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ((), STILL_QUEUED),
        ((pod(TRAIN_1, 0),), STILL_QUEUED),
        (
            (pod(TRAIN_1, 0), pod(TRAIN_1, 1, "Pending")),
            Decision("Queued", "Queued", again_in=15, event="Normal Queued"),
        ),
        ((pod(TRAIN_1, 0), pod(TRAIN_1, 1)), IN_TRAINING),
        ((pod(TRAIN_1, 0, "Succeeded"), pod(TRAIN_1, 1)), IN_TRAINING),
        ((pod(TRAIN_1, 0, "Failed"), pod(TRAIN_1, 1)), IN_TRAINING),
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
    assert decide(gang("Active", *pods)).decision == expected


def test_the_newest_progress_report_is_shown() -> None:
    running = (pod(TRAIN_1, 0), pod(TRAIN_1, 1))
    assert decide(gang("Active", *running, progress=PROGRESS)).status.progress == PROGRESS
    restarted = gang("Active", *running, status=trained_status(progress=PROGRESS))
    assert decide(restarted).status.progress == PROGRESS


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
        ((pod(TRAIN_1, 0, "Failed", exit_code=137, oom_killed=True), pod(TRAIN_1, 1)), FIRST_RETRY, "retries"),
        ((failed_pod(TRAIN_1, LOST_PEER), failed_pod(TRAIN_1, LOST_PEER, 1)), FIRST_RETRY, "retries"),
        ((failed_pod(TRAIN_1, LOST_PEER), pod(TRAIN_1, 1, **EXIT_1)), FIRST_RETRY, "retries"),
        ((pod(TRAIN_1, 0, **EXIT_1), evicted(1)), NEXT_AT_ONCE, "disruptions"),
        ((failed_pod(TRAIN_1, LOST_PEER), evicted(1)), NEXT_AT_ONCE, "disruptions"),
        ((failed_pod(TRAIN_1, LOST_PEER), told_to_stop(1)), NEXT_AT_ONCE, "disruptions"),
        ((failed_pod(TRAIN_1, LOST_PEER),), NEXT_AT_ONCE, "disruptions"),
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


def test_a_failure_says_what_happened_and_when_it_goes_on() -> None:
    result = decide(gang("Failed", failed_pod(TRAIN_1, NETWORK_FAILURE), told_to_stop(1)))
    assert result.message == (
        "Attempt 1 failed (StorageUnreachable: The storage did not answer.) Retry 1 of 3 starts at 12:00:10 UTC from "
        "the newest checkpoint."
    )
    assert (result.status.failure.reason, result.status.failure.rank) == ("StorageUnreachable", 0)


def test_a_failure_that_cannot_heal_ends_the_run() -> None:
    result = decide(gang("Failed", failed_pod(TRAIN_1, LOST_PEER), failed_pod(TRAIN_1, LOSS_NOT_FINITE, 1)))
    assert result.decision == Decision("Failed", "LossNotFinite", stalled=True, event="Warning LossNotFinite")
    assert result.message == LOSS_NOT_FINITE.message
    assert result.status.completion_time == NOW


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
    assert result.message == "Attempt 1 was disrupted; the next one resumes from the newest checkpoint."


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    observed = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1, deleting=True))
    assert decide(observed).decision == Decision("Training", "Training")


def test_attempts_that_are_disrupted_at_once_are_kept_apart() -> None:
    status = trained_status(attempt_status(start_time=ago(3)), conditions=TRAINING)
    assert decide(observed_job(status, job(TRAIN_1, "Failed"))).decision.again_in == 7


# The next attempt.


def between_attempts(retry_in: float, **changes: Any) -> FineTuneJobStatus:
    status = plan(gang("Failed", failed_pod(TRAIN_1, NETWORK_FAILURE), pod(TRAIN_1, 1)), NOW).status
    assert status.attempt is not None
    attempt = status.attempt.model_copy(update={"next_time": later(retry_in), **changes})
    return status.model_copy(update={"attempt": attempt})


def test_until_its_time_the_next_attempt_waits() -> None:
    observed = observed_job(between_attempts(retry_in=7), job(TRAIN_1, "Failed"))
    assert decide(observed).decision == Decision("Retrying", "Retrying", again_in=7)


def test_the_next_attempt_has_its_own_objects_and_remembers_the_counts() -> None:
    observed = observed_job(between_attempts(0, disruptions=2), job(TRAIN_1, "Failed"), platform=resolved_class())
    result = decide(observed)
    assert result.decision == Decision("Queued", "Queued", writes=TRAIN_2_OBJECTS, event="Normal Queued")
    attempt = result.status.attempt
    assert (attempt.number, attempt.job_name, attempt.retries, attempt.disruptions) == (2, TRAIN_2, 1, 2)
    assert (attempt.class_generation, attempt.start_time, attempt.next_time) == (4, NOW, None)


def test_an_attempt_whose_status_was_lost_in_a_crash_is_not_made_twice() -> None:
    """The operator died between making the Job and writing the status: the same names come again."""
    status = between_attempts(0)
    first = plan(observed_job(status, job(TRAIN_1, "Failed")), NOW)
    again = plan(observed_job(status, job(TRAIN_1, "Failed"), job(TRAIN_2)), NOW + timedelta(seconds=5))
    assert again.create == first.create
    assert TRAIN_2 not in {child.name for child in again.delete}


def test_a_pod_learns_where_to_report_and_whom_to_trust() -> None:
    endpoint = ProgressEndpoint("https://finetune.svc:8443/", "-----BEGIN CERTIFICATE-----")
    config_map, _, train_job = plan(observed_job(between_attempts(0), progress_endpoint=endpoint), NOW).create
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
    assert result.decision == Decision("Succeeded", "Succeeded", ready=True, event="Normal Succeeded")
    assert result.message == f"The LoRA result of step 300 is in {RESULT.uri}. Validation loss 0.5000."
    assert result.status.result == RESULT
    assert result.status.checkpoints == [CHECKPOINT]
    assert result.status.completion_time == NOW
    assert (result.status.progress.percent, result.status.progress.estimated_remaining_seconds) == (100, 0)


def test_a_rank_that_is_lost_after_the_result_is_committed_does_not_matter() -> None:
    result = decide(gang("Failed", succeeded_pod(TRAIN_1, TRAIN_REPORT), evicted(1)))
    assert (result.decision.phase, result.status.result) == ("Succeeded", RESULT)


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
