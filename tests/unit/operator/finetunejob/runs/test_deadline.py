"""The deadline of a FineTuneJob, whatever its times say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import CheckpointStatus, EndedRun, FineTuneJobStatus
from finetune_api.lifecycle import FailureStatus
from finetune_operator.environment import Environment
from finetune_operator.finetunejob.observe import observe
from finetune_operator.finetunejob.plan import plan
from finetune_operator.finetunejob.run_identity import run_digest
from finetune_operator.kube.resources import FINE_TUNE_CLASSES
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.finetunejob.runs.runs import PROGRESS, USAGE, decide, finished, stopped_status
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    CLASS_WIRE,
    JOB_WIRE,
    NOW,
    TRAIN_1,
    Decision,
    ago,
    attempt_status,
    earlier_conditions,
    ended_attempt,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    of_job,
    pod,
    preflight_status,
    resolved_class,
    trained_status,
)

# Deadlines.


@pytest.mark.parametrize(
    ("of_spec", "of_class", "age", "phase", "again_in"),
    [
        (100, None, 99, "Training", 1),
        (100, None, 100, "Failed", 0),
        (None, 100, 99, "Training", 1),
        (None, 100, 100, "Failed", 0),
        (50, 100, 60, "Failed", 0),
        (None, None, 10_000_000, "Training", None),
        (315_360_000, None, 60, "Training", 315_359_940),
    ],
)
def test_a_run_ends_at_its_deadline(
    of_spec: int | None, of_class: int | None, age: float, phase: str, again_in: float | None
) -> None:
    """An attempt keeps the class's deadline that it was started with."""
    attempt = attempt_status(class_deadline_seconds=of_class)
    status = trained_status(attempt, start_time=ago(age), conditions=earlier_conditions(Reason.TRAINING))
    observed = observed_job(
        status,
        job(TRAIN_1),
        pods=(pod(TRAIN_1),),
        spec=job_spec(activeDeadlineSeconds=of_spec),
        class_=resolved_class(limits={"activeDeadlineSeconds": 1}),
    )
    result = decide(observed)
    assert (result.decision.phase, result.decision.again_in) == (phase, again_in)
    if phase == "Failed":
        assert result.decision.reason == "DeadlineExceeded"
        assert "Raise activeDeadlineSeconds and change runId" in result.message
        assert result.status.ended_attempts[-1].reason == "DeadlineExceeded"
        assert decide(replace(observed, status=result.status)).decision.deletes == of_job(TRAIN_1)


@pytest.mark.parametrize(
    ("before", "now", "of_class", "age", "phase"),
    [
        (50, 100, None, 60, "Training"),
        (50, None, None, 60, "Training"),
        (50, 1000, 100, 99, "Training"),
        (50, 1000, 100, 100, "Failed"),
        (50, None, 100, 100, "Failed"),
        (1000, 50, None, 60, "Failed"),
    ],
)
def test_a_deadline_that_is_changed_within_a_run_holds_at_once_up_to_the_class_s(
    before: int, now: int | None, of_class: int | None, age: float, phase: str
) -> None:
    """And the run stays the same: its digest, its folder and its attempt."""
    first, changed = job_spec(activeDeadlineSeconds=before), job_spec(activeDeadlineSeconds=now)
    attempt = attempt_status(class_deadline_seconds=of_class)
    status = trained_status(
        attempt, start_time=ago(age), conditions=earlier_conditions(Reason.TRAINING), run_digest=run_digest(first, 1)
    )
    result = decide(observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=changed))
    assert result.decision.phase == phase
    assert run_digest(changed, 1) == status.run_digest == result.status.run_digest
    assert result.status.attempt.number == attempt.number


def test_a_run_that_another_one_follows_ends_for_that_and_not_at_a_deadline() -> None:
    """The deadline is the next run's."""
    status = trained_status(start_time=ago(3600))
    spec = job_spec(runId="2", activeDeadlineSeconds=60)
    result = decide(observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=spec))
    assert (result.decision.phase, result.decision.reason, result.decision.again_in) == ("Training", "Stopping", 0)


@pytest.mark.parametrize(
    ("of_spec", "of_class", "kept"), [(12, 18, 12), (None, 18, 18), (None, None, None), (12, None, 12)]
)
def test_an_attempt_is_started_with_the_deadline_of_the_spec_at_most_that_of_the_class(
    of_spec: int | None, of_class: int | None, kept: int | None
) -> None:
    result = decide(
        observed_job(
            stopped_status(start_time=ago(10), suspend_time=ago(5)),
            spec=job_spec(activeDeadlineSeconds=of_spec),
            class_=resolved_class(limits={"activeDeadlineSeconds": of_class}),
        )
    )
    assert result.status.attempt.class_deadline_seconds == of_class
    assert result.decision.again_in == (15 if kept is None else kept - 10 + 5)


def test_the_time_of_a_suspension_does_not_count_for_the_deadline() -> None:
    status = stopped_status(start_time=ago(3700), suspended_seconds=20)
    suspended = observed_job(status, spec=job_spec(suspend=True, activeDeadlineSeconds=90))
    assert decide(suspended).decision == Decision("Suspended", "Suspended")
    resumed = decide(replace(suspended, spec=job_spec(activeDeadlineSeconds=90)))
    assert (resumed.decision.phase, resumed.decision.again_in) == ("Queued", 10)
    assert resumed.status.suspended_seconds == 3620


@pytest.mark.parametrize("seconds", [10**18, -(10**18)])
@pytest.mark.parametrize(
    ("moment", "running", "removed"),
    [("9999-12-31T23:59:59Z", "Training", set()), ("0001-01-01T00:00:00Z", "DeadlineExceeded", {TRAIN_1})],
)
def test_a_status_with_times_and_counts_out_of_range_is_planned_all_the_same(
    moment: str, running: str, removed: set[str], seconds: int
) -> None:
    wire = trained_status(attempt_status(class_deadline_seconds=60)).to_wire()
    wire |= {"startTime": moment, "suspendedSeconds": seconds, "usage": {**USAGE.to_wire(), "countedTime": moment}}
    wire["attempt"] |= {"startTime": moment}
    status = FineTuneJobStatus.read(wire)
    planned = [decide(observed_job(status, *jobs)) for jobs in ((job(TRAIN_1),), (job(TRAIN_1, "Failed"),), ())]
    assert [result.decision.reason for result in planned] == [running, "Retrying", "Retrying"]
    assert all(0 < (result.decision.again_in or 0) <= 10 for result in planned[1:])
    over = FineTuneJobStatus.read({**wire, "phase": "Succeeded", "completionTime": moment})
    after = plan(observed_job(over, job(TRAIN_1, "Complete"), spec=job_spec(ttlSecondsAfterFinished=3600)), NOW)
    assert (after.status.phase, {child.name for child in after.delete}) == ("Succeeded", removed)


@pytest.mark.parametrize(
    ("written", "corrected"),
    [
        ({"start_time": later(10**8)}, {"start_time": NOW}),
        ({"start_time": ago(10**9)}, {"start_time": ago(1000)}),
        ({"start_time": later(30)}, {"start_time": later(30)}),
        ({"start_time": ago(1030)}, {"start_time": ago(1030)}),
        ({"start_time": ago(500), "suspended_seconds": 10**8}, {"start_time": ago(500), "suspended_seconds": 500}),
        (
            {"attempt": attempt_status(start_time=later(10**8))},
            {"attempt": attempt_status(state="Running", job_uid=f"uid-of-{TRAIN_1}", start_time=NOW)},
        ),
        (
            {"progress": PROGRESS.model_copy(update={"last_updated_time": later(10**8)})},
            {"progress": PROGRESS.model_copy(update={"last_updated_time": NOW})},
        ),
    ],
)
def test_times_that_a_wrong_clock_wrote_are_corrected(written: dict[str, Any], corrected: dict[str, Any]) -> None:
    """A moment before the object was made, or after now. Clocks that differ by seconds are not wrong."""
    observed = observed_job(trained_status(**written), job(TRAIN_1), pods=(pod(TRAIN_1),), created=ago(1000))
    found = decide(observed).status
    assert {name: getattr(found, name) for name in corrected} == corrected
    assert plan(replace(observed, status=found), NOW).status == found


def test_a_run_that_begins_again_began_after_the_one_before_ended() -> None:
    before = EndedRun(run_id="0", phase="Succeeded", reason="Succeeded", completion_time=ago(300))
    status = trained_status(start_time=ago(10**9), history=[before])
    observed = observed_job(status, job(TRAIN_1), created=ago(10**6), spec=job_spec(activeDeadlineSeconds=600))
    assert decide(observed).status.start_time == ago(300)


@pytest.mark.parametrize("moment", [later(10**9), ago(10**9)])
def test_a_deadline_is_kept_whatever_a_wrong_clock_wrote(moment: datetime) -> None:
    """Neither at once, nor never."""
    observed = observed_job(
        trained_status(start_time=moment),
        job(TRAIN_1),
        pods=(pod(TRAIN_1),),
        created=ago(100),
        spec=job_spec(activeDeadlineSeconds=600),
    )
    found = decide(observed)
    assert found.decision.phase == "Training"
    assert found.decision.again_in is not None
    assert 0 < found.decision.again_in <= 600
    waits_long = observed_job(
        trained_status(start_time=ago(90), suspend_time=ago(10**9)), created=ago(100), spec=job_spec(suspend=False)
    )
    assert decide(waits_long).status.suspended_seconds == 90


def test_an_operator_whose_own_clock_is_behind_changes_nothing() -> None:
    """Its objects were made later than now: nothing can be said, and nothing is written again and again."""
    status = trained_status(start_time=ago(50))
    observed = observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), created=later(10**6))
    assert decide(observed).status.start_time == ago(50)


DAYS = 24 * 3600


@pytest.mark.parametrize("written", [{"created": later(10**6)}, {"status_written": ago(1)}])
def test_a_clock_that_is_behind_for_one_look_costs_a_long_suspended_run_nothing(written: dict[str, Any]) -> None:
    """Six days old, suspended for five of them, with a deadline of two; one look by a clock 20 days slow."""
    status = trained_status(start_time=ago(6 * DAYS), suspended_seconds=5 * DAYS, usage=USAGE)
    made = {"created": ago(7 * DAYS), **written}
    running = observed_job(
        status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=job_spec(activeDeadlineSeconds=2 * DAYS), **made
    )
    slow = plan(running, NOW - timedelta(days=20)).status
    assert (slow.start_time, slow.suspended_seconds) == (status.start_time, status.suspended_seconds)
    assert slow.usage == status.usage
    right = plan(replace(running, status=slow, created=ago(7 * DAYS)), NOW)
    assert (right.status.phase, right.requeue_at) == ("Training", later(DAYS))
    over = finished(start_time=ago(6 * DAYS), completion_time=ago(DAYS))
    end = replace(running, status=over)
    assert plan(end, NOW - timedelta(days=20)).status.completion_time == over.completion_time


async def test_when_the_status_was_written_last_is_read_from_the_api_servers_account() -> None:
    entries = [
        {"manager": "finetune-operator", "subresource": "status", "time": "2026-11-22T11:30:00Z"},
        {"manager": "finetune-operator-conditions", "subresource": "status", "time": "2026-11-22T11:40:00Z"},
        {"manager": "kubectl", "time": "2026-11-22T11:50:00Z"},
    ]
    metadata = {"name": "router", "namespace": "team-a", "uid": "u", "generation": 1, "managedFields": entries}
    parent = {
        "kind": "FineTuneJob",
        "metadata": {**metadata, "creationTimestamp": "2026-11-22T11:00:00Z"},
        "spec": {**JOB_WIRE, "className": "cpu"},
    }
    class_ = {"metadata": {"name": "cpu", "generation": 1, "uid": "u-cpu"}, "spec": CLASS_WIRE}
    cluster = FakeKube({f"GET {FINE_TUNE_CLASSES.path(None, 'cpu')}": class_})
    found = await observe(cluster, parent, environment=Environment())
    assert (found.created, found.status_written) == (ago(3600), ago(1200))


def test_the_time_of_a_suspension_is_not_lost_where_a_slow_clock_sees_its_end() -> None:
    """The run's clock stands still until somebody can tell for how long it did."""
    status = stopped_status(start_time=ago(6 * DAYS), suspend_time=ago(5 * DAYS))
    resumed = observed_job(status, spec=job_spec(activeDeadlineSeconds=2 * DAYS), created=ago(7 * DAYS))
    slow = plan(replace(resumed, status_written=ago(1)), NOW - timedelta(days=20)).status
    assert (slow.suspend_time, slow.suspended_seconds) == (status.suspend_time, 0)
    right = decide(replace(resumed, status=slow)).status
    assert (right.suspend_time, right.suspended_seconds) == (None, 5 * DAYS)


def test_an_end_of_the_run_before_that_was_written_ahead_leaves_a_right_start_alone() -> None:
    before = EndedRun(run_id="0", phase="Succeeded", reason="Succeeded", completion_time=ago(DAYS))
    status = trained_status(start_time=ago(9 * DAYS), history=[before])
    observed = observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), created=ago(30 * DAYS))
    assert decide(observed).status.start_time == ago(9 * DAYS)


def test_a_run_that_a_slow_clock_begins_began_no_earlier_than_what_is_there_was_made() -> None:
    observed = observed_job(created=ago(100))
    assert plan(observed, NOW - timedelta(days=20)).status.start_time == ago(100)


@pytest.mark.parametrize("moment", [later(10**9), ago(10**9)])
def test_a_ttl_counts_from_now_where_a_wrong_clock_wrote_the_end(moment: datetime) -> None:
    status = finished(completion_time=moment)
    observed = observed_job(status, job(TRAIN_1, "Complete"), spec=job_spec(ttlSecondsAfterFinished=60))
    assert (decide(observed).decision.deletes, decide(observed).decision.again_in) == ((), 60)


def test_a_start_in_the_future_does_not_keep_the_next_attempt_waiting() -> None:
    """The clock of the operator that wrote it was wrong."""
    status = trained_status(attempt_status(start_time=later(10**6)))
    assert decide(observed_job(status, job(TRAIN_1, "Failed"))).decision.again_in == 10


def test_a_job_that_waits_for_its_class_ends_at_its_deadline_too() -> None:
    observed = observed_job(
        job_status(start_time=ago(100)), spec=job_spec(activeDeadlineSeconds=100), class_=CLASS_NOT_FOUND
    )
    assert decide(observed).decision.reason == "DeadlineExceeded"


@pytest.mark.parametrize(("of_class", "whose"), [(None, "spec"), (80, "limits")])
def test_a_run_that_ends_at_its_deadline_says_which_one_and_what_it_was_spent_on(
    of_class: int | None, whose: str
) -> None:
    attempt = attempt_status(class_deadline_seconds=of_class, start_time=ago(60))
    status = trained_status(attempt, start_time=ago(90), storage_uri="s3://b/router", failure=None)
    result = decide(observed_job(status, job(TRAIN_1), spec=job_spec(activeDeadlineSeconds=90)))
    seconds, of = (80, " of the FineTuneClass") if of_class else (90, "")
    assert result.message == (
        f"The run did not end within {seconds}s ({whose}.activeDeadlineSeconds{of}). Preflight took 30s of it. "
        "No checkpoint had been saved. Raise activeDeadlineSeconds and change runId to run again."
    )
    assert result.status.failure is not None
    assert (result.status.failure.reason, result.status.failure.message) == ("DeadlineExceeded", result.message)

    saved = status.model_copy(update={"checkpoints": [CheckpointStatus(step=1, uri="s3://b/router/c")]})
    kept = decide(observed_job(saved, job(TRAIN_1), spec=job_spec(activeDeadlineSeconds=90)))
    assert "Its checkpoints are kept in s3://b/router." in kept.message

    checked = job_status(preflight=preflight_status(), start_time=ago(90))
    early = decide(observed_job(checked, spec=job_spec(activeDeadlineSeconds=90)))
    assert "Training had not begun. No checkpoint had been saved." in early.message


def test_a_run_that_ends_at_its_deadline_between_tries_says_why_they_failed() -> None:
    spec = job_spec(activeDeadlineSeconds=60)
    failure = FailureStatus(reason="DatasetInvalid", message="Line 7 is broken.", suggestion="Mend it.")
    again = preflight_status(succeeded=False, retry_time=later(60))
    checked = job_status(preflight=again, failure=failure, start_time=ago(60))
    result = decide(observed_job(checked, spec=spec))
    assert result.decision.reason == "DeadlineExceeded"
    assert " The last preflight failed: DatasetInvalid: Line 7 is broken. Mend it. " in result.message

    end = ended_attempt(outcome="Failed", reason="StorageUnreachable", message="It did not answer.")
    failed = attempt_status(state="Failed", retries=1, next_time=later(60))
    trained = trained_status(failed, ended_attempts=[end], start_time=ago(60))
    result = decide(observed_job(trained, spec=spec))
    assert result.decision.reason == "DeadlineExceeded"
    assert " Attempt 1 failed (StorageUnreachable: It did not answer.) " in result.message
