"""FineTuneJob, an attempt that waits or runs: queue, progress, checkpoints."""

from __future__ import annotations

from datetime import datetime

import pytest

from finetune_api.finetunejob import CorruptCheckpoint
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_operator.pods.observed import PodView
from tests.unit.operator.finetunejob.attempts.attempt_states import (
    PROGRESS,
    QUEUED_STATUS,
    TRAINING,
    TWO_NODES,
    decide,
    gang,
)
from tests.unit.operator.states import (
    CHECKPOINT,
    NOW,
    TRAIN_1,
    Decision,
    ago,
    attempt_status,
    job,
    later,
    observed_job,
    of_job,
    pod,
    trained_status,
)

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


@pytest.mark.parametrize("pods", [(), (pod(TRAIN_1, 0, "Pending"), pod(TRAIN_1, 1, "Pending"))])
def test_a_job_whose_pods_have_not_started_is_not_worth_a_status_write(pods: tuple[PodView, ...]) -> None:
    before = trained_status(attempt_status(state="Pending"), phase="Queued")
    assert decide(gang("Active", *pods, status=before)).status.attempt == before.attempt


@pytest.mark.parametrize(
    ("gap", "growth", "told"),
    [
        (
            0.25,
            1.0,
            " The training reward is 0.25 above validReward: the model may have found a weakness of the graders.",
        ),
        (0.0, 4.0, " Completions have 4.0 times as many tokens as at first: the graders may reward length."),
        (0.05, 1.2, ""),
    ],
)
def test_signs_that_the_model_games_its_graders_are_in_the_condition(gap: float, growth: float, told: str) -> None:
    progress = PROGRESS.model_copy(update={"reward_gap": gap, "completion_growth": growth})
    result = decide(gang("Active", pod(TRAIN_1, 0), pod(TRAIN_1, 1), progress=progress))
    assert result.message == f"Attempt 1 is training on 2 nodes.{told}"


@pytest.mark.parametrize("pods", [(pod(TRAIN_1, 0, started_time=ago(1)),), (pod(TRAIN_1, 0), pod(TRAIN_1, 1))])
def test_the_jobs_uid_by_which_its_pods_may_report_is_known_once_one_may(pods: tuple[PodView, ...]) -> None:
    attempt = decide(gang("Active", *pods, status=QUEUED_STATUS)).status.attempt
    assert attempt is not None
    assert attempt.job_uid == f"uid-of-{TRAIN_1}"


def test_what_a_pod_of_the_gang_waits_for_is_said_before_it_is_a_blockage() -> None:
    waiting = pod(TRAIN_1, 1, "Pending", unschedulable_since=ago(28), unschedulable_message="0/1 nodes are available.")
    result = decide(gang("Active", pod(TRAIN_1, 0), waiting, status=QUEUED_STATUS))
    assert result.decision == STILL_QUEUED
    assert f"Pod {waiting.name} can't be scheduled: 0/1 nodes are available." in result.message


@pytest.mark.parametrize("pods", [(), (pod(TRAIN_1, 0),)], ids=["both Pods vanished", "one Pod vanished"])
def test_a_gang_that_has_trained_is_not_queued_again_while_its_pods_vanish(pods: tuple[PodView, ...]) -> None:
    """The Job controller takes the others away when one has ended; what it was is known when the Job has ended."""
    assert decide(gang("Active", *pods)).decision == Decision("Training", "Training")


def test_a_gang_of_which_one_has_ended_says_what_it_waits_for() -> None:
    ending = job(TRAIN_1, parallelism=2, ending=True)
    observed = observed_job(trained_status(conditions=TRAINING), ending, pods=(pod(TRAIN_1, 1),), spec=TWO_NODES)
    result = decide(observed)
    assert result.decision == Decision("Training", "Training")
    assert result.message == "Attempt 1 has ended on one node. Waiting for its other Pods to end."


def test_when_the_first_pod_began_to_run_is_remembered() -> None:
    pods = (pod(TRAIN_1, 0, started_time=ago(7)), pod(TRAIN_1, 1, started_time=ago(9)))
    assert decide(gang("Active", *pods)).status.attempt.pods_start_time == ago(9)
    before = trained_status(attempt_status(pods_start_time=ago(50)), conditions=TRAINING)
    assert decide(gang("Active", *pods, status=before)).status.attempt.pods_start_time == ago(50)


@pytest.mark.parametrize(("clock", "recorded"), [(ago(3600), ago(60)), (later(3600), NOW)])
def test_no_pod_began_before_its_job_was_created_or_later_than_now(clock: datetime, recorded: datetime) -> None:
    """Its node's clock is wrong: hours would count that nobody used, or none of those that were."""
    assert decide(gang("Active", pod(TRAIN_1, 0, started_time=clock))).status.attempt.pods_start_time == recorded


def test_the_newest_progress_report_is_shown() -> None:
    running = (pod(TRAIN_1, 0), pod(TRAIN_1, 1))
    shown = PROGRESS.model_copy(update={"estimated_remaining": "10m"})
    assert decide(gang("Active", *running, progress=PROGRESS)).status.progress == shown
    restarted = gang("Active", *running, status=trained_status(progress=shown))
    assert decide(restarted).status.progress == shown


LEDGER = CheckpointReport(
    checkpoints=[CHECKPOINT],
    corrupt=[CorruptCheckpoint(step=100, message="one file is short")],
    checkpoint_seconds=40.5,
)


def test_the_checkpoint_ledger_is_shown_and_the_longest_save_is_remembered() -> None:
    running = (pod(TRAIN_1, 0), pod(TRAIN_1, 1))
    status = decide(gang("Active", *running, checkpoint_report=LEDGER)).status
    assert (status.checkpoints, status.corrupt_checkpoints) == ([CHECKPOINT], LEDGER.corrupt)
    assert status.checkpoint_seconds == 40.5
    slower = trained_status(conditions=TRAINING, checkpoint_seconds=90.0)
    assert decide(gang("Active", *running, checkpoint_report=LEDGER, status=slower)).status.checkpoint_seconds == 90.0


def test_a_ledger_of_any_length_fits_the_status() -> None:
    ledger = CheckpointReport(
        checkpoints=[CHECKPOINT.model_copy(update={"step": n}) for n in range(100)],
        corrupt=[CorruptCheckpoint(step=n, message="x") for n in range(20)],
    )
    longer = ledger.model_copy(update={"checkpoints": ledger.checkpoints * 2, "corrupt": ledger.corrupt * 2})
    status = decide(gang("Active", pod(TRAIN_1), pod(TRAIN_1, 1), checkpoint_report=longer)).status
    assert (len(status.checkpoints), len(status.corrupt_checkpoints)) == (100, 20)


def test_a_job_that_an_earlier_run_left_running_is_ended() -> None:
    stray = job("router-train-of-before")
    observed = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1), stray, pods=(pod(TRAIN_1),))
    assert decide(observed).decision == Decision("Training", "Training", deletes=of_job(stray.name))
