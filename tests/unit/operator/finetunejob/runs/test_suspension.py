"""A FineTuneJob that is suspended and resumed: what ends, what counts, and where it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.finetunejob.runs.runs import (
    IN_PREFLIGHT,
    IN_TRAINING,
    PROGRESS,
    SUSPENDED_STATUS,
    carried_out,
    decide,
    stopped,
    stopped_status,
)
from tests.unit.operator.states import (
    CHECKPOINT,
    NETWORK_FAILURE,
    NOW,
    PREFLIGHT_1,
    PREFLIGHT_2,
    TRAIN_1,
    TRAIN_2,
    TRAIN_REPORT,
    Decision,
    ago,
    attempt_status,
    ended_attempt,
    failed_pod,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
    succeeded_pod,
    trained_status,
)

SUSPENDED = job_spec(suspend=True)


# Suspend and resume.


SAVING = pod(TRAIN_1, deletion_time=later(40))


@pytest.mark.parametrize(
    ("status", "running", "phase"), [(IN_PREFLIGHT, PREFLIGHT_1, "Validating"), (IN_TRAINING, TRAIN_1, "Training")]
)
def test_suspend_is_written_down_then_the_job_goes_then_its_pods_are_waited_for(
    status: FineTuneJobStatus, running: str, phase: str
) -> None:
    waits, saving = stopped(observed_job(status, job(running), pods=(pod(running),), spec=SUSPENDED), running, phase)
    assert waits.message == (
        f"spec.suspend is true. Waiting for 1 Pod to save and end, by 12:00:40 UTC at the latest: {running}-0-abcde."
    )
    free = decide(carried_out(waits, saving, pods=()))
    assert free.decision == Decision("Suspended", "Suspended", event="Normal Suspended")
    assert free.status.suspend_time == NOW


def test_a_suspended_job_is_looked_at_again_when_its_newest_report_may_be_shown() -> None:
    """No event follows the last one."""
    free = observed_job(stopped_status(), spec=SUSPENDED)
    assert decide(free).decision.again_in is None
    assert decide(replace(free, newer_report_time=later(4))).decision.again_in == 4


def test_a_suspended_attempt_is_recorded_and_counts_nothing() -> None:
    status = decide(observed_job(IN_TRAINING, job(TRAIN_1), spec=SUSPENDED)).status
    (ended,) = status.ended_attempts
    assert (ended.number, ended.outcome, ended.reason, ended.step) == (1, "Suspended", None, 30)
    assert (status.attempt.retries, status.attempt.disruptions) == (0, 0)


SAVED_LATE = CheckpointReport(checkpoints=[CHECKPOINT.model_copy(update={"step": 43})], checkpoint_seconds=12.0)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"spec": SUSPENDED}, "Suspended"),
        ({"spec": job_spec(runId="2")}, "Superseded"),
        ({"jobs": ()}, "Disrupted"),
        ({"spec": job_spec(activeDeadlineSeconds=1)}, "Failed"),
    ],
    ids=["suspended", "another run", "its Job deleted", "deadline"],
)
def test_what_stopped_pods_save_and_report_is_shown(change: dict[str, Any], outcome: str) -> None:
    """An attempt ends with its Pods, however long before that they were told to."""
    saving = pod(TRAIN_1, deletion_time=ago(-40))
    jobs = change.pop("jobs", (job(TRAIN_1),))
    told = decide(observed_job(IN_TRAINING, *jobs, pods=(saving,), **change)).status
    assert told.ended_attempts[-1].outcome == outcome
    later = NOW + timedelta(seconds=30)
    progress = PROGRESS.model_copy(update={"step": 43, "last_updated_time": later})
    observed = observed_job(told, pods=(saving,), progress=progress, checkpoint_report=SAVED_LATE, **change)
    (ended,) = plan(observed, later).status.ended_attempts
    assert (ended.outcome, ended.step, ended.end_time) == (outcome, 43, later)
    gone = plan(replace(observed, pods=()), later).status
    assert [checkpoint.step for checkpoint in gone.checkpoints] == [43] or gone.run_id == "2"
    assert plan(observed, later).status.checkpoints[-1].step == 43


def test_a_crash_between_deleting_and_the_next_status_is_no_disruption() -> None:
    """The end was written down first, so a Job that is gone surprises nobody."""
    noted = decide(observed_job(IN_TRAINING, job(TRAIN_1), spec=SUSPENDED)).status
    assert decide(observed_job(noted, spec=SUSPENDED)).status.attempt.disruptions == 0
    assert decide(observed_job(noted)).status.attempt.disruptions == 0


def test_a_pod_of_a_lost_node_does_not_keep_a_job_from_being_suspended() -> None:
    lost = pod(TRAIN_1, deletion_time=ago(180))
    result = decide(observed_job(stopped_status(), pods=(lost,), spec=SUSPENDED))
    assert result.decision.phase == "Suspended"
    assert f"No longer waiting for {lost.name}" in result.message


def test_a_job_that_is_suspended_from_the_start_makes_nothing() -> None:
    assert decide(observed_job(FineTuneJobStatus(), spec=SUSPENDED)).decision == Decision(
        "Suspended", "Suspended", event="Normal Suspended"
    )


def test_a_suspended_job_keeps_what_has_ended() -> None:
    observed = observed_job(stopped_status(), job(PREFLIGHT_1, "Complete"), spec=SUSPENDED)
    assert decide(observed).decision == Decision("Suspended", "Suspended")


def test_resume_in_training_starts_the_next_attempt_and_counts_nothing() -> None:
    result = decide(observed_job(stopped_status()))
    assert (result.decision.phase, result.decision.writes[-1]) == ("Queued", f"Job/{TRAIN_2}")
    assert (result.status.attempt.number, result.status.attempt.disruptions) == (2, 0)
    assert (result.status.suspend_time, result.status.suspended_seconds) == (None, 3600)


@pytest.mark.parametrize(
    "left", [{"pods": (SAVING,)}, {"jobs": (job(TRAIN_1),)}], ids=["a Pod saves", "a Job is there"]
)
def test_resume_waits_for_what_still_ends(left: dict[str, Any]) -> None:
    result = decide(replace(observed_job(stopped_status()), **left))
    assert (result.decision.phase, result.decision.reason, result.decision.writes) == ("Queued", "Queued", ())
    assert result.message.startswith("Waiting for")


def test_resume_in_preflight_checks_again() -> None:
    suspended = preflight_status(retry_time=ago(60))
    result = decide(observed_job(job_status(preflight=suspended, **SUSPENDED_STATUS)))
    assert result.decision.writes == (f"Pod/{PREFLIGHT_2}",)


def test_resume_between_two_attempts_says_so() -> None:
    attempt = attempt_status(next_time=later(60), retries=1)
    status = trained_status(attempt, **SUSPENDED_STATUS, ended_attempts=[ended_attempt(1, "Failed", reason="Failed")])
    result = decide(observed_job(status, job(TRAIN_1, "Failed")))
    assert result.decision == Decision("Retrying", "Retrying", again_in=60, event="Normal Retrying")


def test_an_attempt_that_ended_before_it_was_suspended_is_judged_first() -> None:
    failed = (failed_pod(TRAIN_1, NETWORK_FAILURE),)
    retried = decide(observed_job(IN_TRAINING, job(TRAIN_1, "Failed"), pods=failed, spec=SUSPENDED))
    assert (retried.decision.phase, retried.status.attempt.retries) == ("Suspended", 1)
    done = (succeeded_pod(TRAIN_1, TRAIN_REPORT),)
    complete = decide(observed_job(IN_TRAINING, job(TRAIN_1, "Complete"), pods=done, spec=SUSPENDED))
    assert complete.decision.phase == "Succeeded"
