"""FineTuneJob in a Kueue queue: it starts when Kueue says so, and a quota that is taken back is a disruption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.observed import QUEUE_LABEL
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    NOW,
    TRAIN_1,
    TRAIN_2,
    Decided,
    Decision,
    ago,
    attempt_status,
    decided,
    earlier_conditions,
    job,
    job_spec,
    later,
    observed_job,
    of_job,
    pod,
    resolved_class,
    trained_status,
)

WITH_QUEUE = resolved_class(scheduling={"queueName": "gpus"})
WAITING = trained_status(phase="Queued", conditions=earlier_conditions(Reason.QUEUED))
HAS_RUN = trained_status(attempt_status(pods_start_time=ago(30)), conditions=earlier_conditions(Reason.TRAINING))
QUEUED_JOB = job(TRAIN_1, suspended=True, queue_name="gpus")


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def test_an_attempt_is_made_suspended_and_labelled_with_its_queue() -> None:
    """Kueue starts it; where Kueue's webhook is not there, nothing starts it by mistake."""
    before = trained_status().model_copy(update={"attempt": None})
    result = decide(observed_job(before, class_=WITH_QUEUE))
    body = result.plan.create[-1]
    assert (body["spec"]["suspend"], body["metadata"]["labels"][QUEUE_LABEL]) == (True, "gpus")
    assert result.message == "The Job is waiting for quota in queue 'gpus' (Kueue starts it)."


def test_without_a_queue_nothing_is_suspended() -> None:
    before = trained_status().model_copy(update={"attempt": None})
    body = decide(observed_job(before)).plan.create[-1]
    assert "suspend" not in body["spec"]
    assert QUEUE_LABEL not in body["metadata"]["labels"]


def test_the_preflight_does_not_queue_for_accelerators() -> None:
    body = decide(observed_job(FineTuneJobStatus(), class_=WITH_QUEUE)).plan.create[-1]
    assert "suspend" not in body["spec"]
    assert QUEUE_LABEL not in body["metadata"]["labels"]


def test_a_queued_job_names_its_queue_and_its_deadline_is_paused() -> None:
    observed = observed_job(WAITING, QUEUED_JOB, class_=WITH_QUEUE, spec=job_spec(activeDeadlineSeconds=130))
    result = decide(observed)
    assert result.decision == Decision("Queued", "Queued")
    assert result.message == "The Job is waiting for quota in queue 'gpus' (Kueue starts it)."
    assert result.status.suspend_time == NOW
    started = decided(
        plan(
            replace(observed, status=result.status, jobs=(job(TRAIN_1, queue_name="gpus"),), pods=(pod(TRAIN_1),)),
            later(3600),
        ),
        later(3600),
    )
    assert (started.decision.phase, started.status.suspended_seconds) == ("Training", 3600)


@pytest.mark.parametrize("pods", [(), (pod(TRAIN_1),), (pod(TRAIN_1, deletion_time=later(9)),)])
def test_a_quota_that_is_taken_back_is_a_disruption(pods: tuple[Any, ...]) -> None:
    """The Job goes, and the next attempt queues anew when the Pods have saved and ended."""
    observed = observed_job(HAS_RUN, QUEUED_JOB, pods=pods, class_=WITH_QUEUE)
    evicted = decide(observed)
    assert evicted.decision == Decision("Retrying", "Retrying", again_in=0, event="Normal Retrying")
    (ended,) = evicted.status.ended_attempts
    assert (ended.outcome, ended.reason) == ("Disrupted", "QuotaReclaimed")
    assert (evicted.status.attempt.retries, evicted.status.attempt.disruptions) == (0, 1)
    noted = replace(observed, status=evicted.status)
    assert decide(noted).decision.deletes == of_job(TRAIN_1)
    gone = plan(replace(noted, jobs=(), pods=()), later(1))
    assert gone.create[-1]["metadata"]["name"] == TRAIN_2
    assert gone.create[-1]["spec"]["suspend"]


def test_a_job_that_somebody_suspended_is_no_queues() -> None:
    """kubectl patch job, without a queue: nobody took a quota back."""
    ran = decide(observed_job(HAS_RUN, job(TRAIN_1, suspended=True), pods=(pod(TRAIN_1),)))
    (ended,) = ran.status.ended_attempts
    assert (ended.outcome, ended.reason) == ("Disrupted", "JobSuspended")
    assert ended.message == "Its Job was suspended (spec.suspend of the Job), and is in no queue."
    waiting = decide(observed_job(WAITING, job(TRAIN_1, suspended=True)))
    assert waiting.decision == Decision("Queued", "Queued")
    assert "The Job was suspended" in waiting.message


def test_a_quota_that_is_taken_back_before_anything_ran_keeps_its_place_in_the_queue() -> None:
    observed = observed_job(WAITING, QUEUED_JOB, pods=(pod(TRAIN_1, phase="Pending"),), class_=WITH_QUEUE)
    assert decide(observed).decision == Decision("Queued", "Queued")


def test_a_job_in_the_queue_can_be_suspended() -> None:
    observed = observed_job(WAITING, QUEUED_JOB, class_=WITH_QUEUE, spec=job_spec(suspend=True))
    noted = decide(observed)
    assert noted.status.ended_attempts[-1].outcome == "Suspended"
    assert decide(replace(observed, status=noted.status)).decision.deletes == of_job(TRAIN_1)
