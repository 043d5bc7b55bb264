"""The status Queued waits for a moment: Pods that start at once spare its write. What a person has to read does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.finetunejob.policies.attempt import QUEUED_SECONDS
from finetune_operator.pods.observed import PodView
from tests.unit.operator.states import (
    NOW,
    TRAIN_1,
    TRAIN_2,
    ago,
    attempt_status,
    ended_attempt,
    job,
    later,
    observed_job,
    pod,
    resolved_class,
    trained_status,
)

READY_TO_TRAIN = observed_job(trained_status(phase="Queued").model_copy(update={"attempt": None}))
DUE = later(QUEUED_SECONDS)


def due(observed: ObservedFineTuneJob, now: datetime = NOW) -> datetime | None:
    return plan(observed, now).status_due


def started(*pods: PodView, **changes: Any) -> ObservedFineTuneJob:
    """The first attempt, whose Job was made just now."""
    return replace(READY_TO_TRAIN, status=plan(READY_TO_TRAIN, NOW).status, jobs=(job(TRAIN_1),), pods=pods, **changes)


def test_it_waits_from_the_start_of_the_first_attempt_until_its_pods_could_have_started() -> None:
    assert due(READY_TO_TRAIN) == DUE
    assert due(started()) == DUE
    assert due(started(pod(TRAIN_1, phase="Pending")), later(2)) == DUE, "no event moves it"
    assert due(started(pod(TRAIN_1, phase="Pending")), later(60)) == DUE


def test_nothing_else_waits() -> None:
    assert due(observed_job()) is None, "Validating"
    assert due(started(pod(TRAIN_1))) is None, "Training"
    assert due(started(pod(TRAIN_1, phase="Pending", waiting_reason="ErrImagePull"))) is None, "a diagnosis"


def test_a_job_that_goes_into_a_queue_says_so_at_once() -> None:
    in_queue = replace(READY_TO_TRAIN, class_=resolved_class(scheduling={"queueName": "gpus"}))
    assert due(in_queue) is None
    assert due(replace(started(), jobs=(job(TRAIN_1, suspended=True, queue_name="gpus"),))) is None


def test_a_job_that_a_crash_left_behind_has_waited_already() -> None:
    assert due(replace(READY_TO_TRAIN, jobs=(job(TRAIN_1),), pods=(pod(TRAIN_1, phase="Pending"),))) is None


def test_after_another_attempt_it_is_reported_at_once_why_that_one_ended() -> None:
    status = trained_status(
        attempt_status(number=2, state="Pending", job_name=TRAIN_2, start_time=NOW),
        phase="Queued",
        ended_attempts=[ended_attempt(1, "Failed", reason="Failed")],
    )
    assert due(observed_job(status, job(TRAIN_2), pods=(pod(TRAIN_2, phase="Pending"),))) is None


@pytest.mark.parametrize("seconds", [2, 3600])
def test_a_clock_that_was_set_back_delays_nothing(seconds: float) -> None:
    """The attempt starts in the future then."""
    assert due(started(pod(TRAIN_1, phase="Pending")), ago(seconds)) is None
