"""FineTuneJob, what a person changes: suspend, resume, runId, deadlines, TTL; and what a crash leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.failure import FailureStatus
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, Progress, Usage
from finetune_api.progress import CheckpointLedger
from finetune_operator.finetunejob.objects import preflight_job_name
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.finetunejob.run_key import run_digest
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    CHECKPOINT,
    CLASS_NOT_FOUND,
    NETWORK_FAILURE,
    NOW,
    OWNER,
    PREFLIGHT_1,
    PREFLIGHT_2,
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
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
    resolved_class,
    succeeded_pod,
    trained_status,
    with_config_map,
)

PROGRESS = Progress(step=30, total_steps=750, percent=4, last_updated_time=ago(1))
SUSPENDED = job_spec(suspend=True)
SUSPENDED_STATUS: dict[str, Any] = {"phase": "Suspended", "conditions": earlier_conditions(Reason.SUSPENDED)}


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


# Suspend and resume.

IN_PREFLIGHT = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
IN_TRAINING = trained_status(conditions=earlier_conditions(Reason.TRAINING), progress=PROGRESS)
SAVING = pod(TRAIN_1, deletion_time=later(40))


def carried_out(result: Decided, observed: ObservedFineTuneJob, **changes: Any) -> ObservedFineTuneJob:
    """What is observed once a decision's status is written; its deletions are told as `jobs` and `pods`."""
    return replace(observed, status=result.status, **changes)


def stopped(observed: ObservedFineTuneJob, running: str, phase: str) -> tuple[Decided, ObservedFineTuneJob]:
    """The stop is written down, then the Job goes, then its Pod saves: what is decided then, upon what is observed."""
    noted = decide(observed)
    assert noted.decision == Decision(phase, "Stopping", again_in=0, event="Normal Stopping")
    stopping = carried_out(noted, observed)
    deleted = decide(stopping)
    assert deleted.decision == Decision(phase, "Stopping", deletes=with_config_map(running), again_in=15)
    saving = carried_out(deleted, stopping, jobs=(), pods=(pod(running, deletion_time=later(40)),))
    waits = decide(saving)
    assert waits.decision == Decision(phase, "Stopping", again_in=15)
    return waits, saving


@pytest.mark.parametrize(
    ("status", "running", "phase"), [(IN_PREFLIGHT, PREFLIGHT_1, "Validating"), (IN_TRAINING, TRAIN_1, "Training")]
)
def test_suspend_is_written_down_then_the_job_goes_then_its_pods_are_waited_for(
    status: FineTuneJobStatus, running: str, phase: str
) -> None:
    waits, saving = stopped(observed_job(status, job(running), pods=(pod(running),), spec=SUSPENDED), running, phase)
    assert waits.message == (
        "spec.suspend is true. Waits until 1 Pod has saved and ended, by 12:00:40 UTC at the latest: "
        f"{running}-0-abcde."
    )
    free = decide(carried_out(waits, saving, pods=()))
    assert free.decision == Decision("Suspended", "Suspended", event="Normal Suspended")
    assert free.status.suspend_time == NOW


def test_a_suspended_attempt_is_recorded_and_counts_nothing() -> None:
    status = decide(observed_job(IN_TRAINING, job(TRAIN_1), spec=SUSPENDED)).status
    (ended,) = status.ended_attempts
    assert (ended.number, ended.outcome, ended.reason, ended.step) == (1, "Suspended", None, 30)
    assert (status.attempt.retries, status.attempt.disruptions) == (0, 0)


SAVED_LATE = CheckpointLedger(checkpoints=[CHECKPOINT.model_copy(update={"step": 43})], checkpoint_seconds=12.0)


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
    observed = observed_job(told, pods=(saving,), progress=progress, ledger=SAVED_LATE, **change)
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
    assert f"Not waited for any longer: {lost.name}" in result.message


def test_a_job_that_is_suspended_from_the_start_makes_nothing() -> None:
    assert decide(observed_job(FineTuneJobStatus(), spec=SUSPENDED)).decision == Decision(
        "Suspended", "Suspended", event="Normal Suspended"
    )


def stopped_status(**changes: Any) -> FineTuneJobStatus:
    """Suspended an hour ago."""
    times = {"start_time": ago(3720), "suspend_time": ago(3600)}
    suspended = {**SUSPENDED_STATUS, **times, "ended_attempts": [ended_attempt(1, "Suspended")]}
    return trained_status(**suspended | changes)


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
    assert result.message.startswith("Waits until")


def test_resume_in_preflight_checks_again() -> None:
    suspended = preflight_status(retry_time=ago(60))
    result = decide(observed_job(job_status(preflight=suspended, **SUSPENDED_STATUS)))
    assert result.decision.writes == (f"ConfigMap/{PREFLIGHT_2}", f"Job/{PREFLIGHT_2}")


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


# Another runId.

RERUN = job_spec(runId="2")
SECOND_RUN = preflight_job_name(OWNER, f"2-{run_digest(RERUN, 2)}", 1)
USAGE = Usage(month="2026-11", class_name="cpu", accelerator_seconds=7200, counted_time=ago(5))
SUCCEEDED = trained_status(
    attempt_status(number=3, retries=1, disruptions=1),
    phase="Succeeded",
    result=RESULT,
    usage=USAGE,
    storage_uri=STORAGE_URI,
    completion_time=ago(9),
    conditions=earlier_conditions(Reason.SUCCEEDED, ready=True),
)
FAILED = trained_status(
    phase="Failed",
    completion_time=ago(9),
    conditions=earlier_conditions(Reason.RETRY_LIMIT_REACHED, stalled=True),
)
NEW_RUN = Decision(
    "Validating",
    "Validating",
    writes=(f"ConfigMap/{SECOND_RUN}", f"Job/{SECOND_RUN}"),
    again_in=15,
    event="Normal Validating",
)


@pytest.mark.parametrize("status", [SUCCEEDED, FAILED], ids=["after success", "after failure"])
def test_another_run_id_starts_anew(status: FineTuneJobStatus) -> None:
    result = decide(observed_job(status, job(TRAIN_1, "Complete"), spec=RERUN))
    assert result.decision == NEW_RUN
    fresh = result.status
    assert (fresh.run_id, fresh.start_time, fresh.attempt, fresh.result) == ("2", NOW, None, None)
    assert fresh.storage_uri.endswith(f"/router/2-{run_digest(RERUN, 2)}-0f3c2a91")
    assert fresh.usage == status.usage


def test_the_run_before_is_told_in_the_history() -> None:
    (run,) = decide(observed_job(SUCCEEDED, spec=RERUN)).status.history
    assert run == EndedRun(
        run_id="1",
        phase="Succeeded",
        reason="Succeeded",
        start_time=ago(120),
        completion_time=ago(9),
        attempts=3,
        retries=1,
        disruptions=1,
        result_uri=RESULT.uri,
        storage_uri=STORAGE_URI,
    )
    (run,) = decide(observed_job(FAILED, spec=RERUN)).status.history
    assert (run.phase, run.reason) == ("Failed", "RetryLimitReached")


def test_a_reason_that_another_version_wrote_at_any_length_keeps_no_run_from_beginning() -> None:
    wire = SUCCEEDED.to_wire()
    conditions = [{**item, "reason": "R" * 1500} for item in wire["conditions"]]
    long = FineTuneJobStatus.read({**wire, "conditions": conditions})
    result = decide(observed_job(long, spec=RERUN)).status
    (run,) = result.history
    assert (run.reason, result.run_id) == ("R" * 1024, "2")


def test_of_the_runs_before_ten_are_kept() -> None:
    history = [EndedRun(run_id=f"r{n}", phase="Failed", reason="Failed", completion_time=ago(9)) for n in range(10)]
    kept = decide(observed_job(SUCCEEDED.model_copy(update={"history": history}), spec=RERUN)).status.history
    assert [run.run_id for run in kept] == [*(f"r{n}" for n in range(1, 10)), "1"]


@pytest.mark.parametrize(
    ("status", "running", "phase"), [(IN_PREFLIGHT, PREFLIGHT_1, "Validating"), (IN_TRAINING, TRAIN_1, "Training")]
)
def test_another_run_id_stops_what_runs_and_waits_for_its_pods(
    status: FineTuneJobStatus, running: str, phase: str
) -> None:
    waits, saving = stopped(observed_job(status, job(running), pods=(pod(running),), spec=RERUN), running, phase)
    assert waits.message.startswith("runId changed from '1' to '2'. Waits until 1 Pod has saved and ended, by 12:00:40")
    fresh = decide(carried_out(waits, saving, pods=()))
    assert fresh.decision == NEW_RUN
    (run,) = fresh.status.history
    assert (run.run_id, run.phase, run.reason, run.completion_time) == ("1", phase, "Superseded", NOW)


def test_a_run_that_has_just_succeeded_keeps_its_result_in_the_history() -> None:
    observed = observed_job(
        IN_TRAINING, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),), spec=RERUN
    )
    done = decide(observed)
    assert done.decision.phase == "Succeeded"
    (run,) = decide(carried_out(done, observed)).status.history
    assert (run.phase, run.result_uri) == ("Succeeded", RESULT.uri)


@pytest.mark.parametrize("reason", [Reason.STATUS_UNREADABLE, Reason.INVALID_SPEC])
@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_an_end_that_another_version_could_not_read_stands_again(phase: Any, reason: Reason) -> None:
    """What an old operator said while it led for a minute is gone once one looks that knows better."""
    failure = FailureStatus(reason=Reason.LOSS_NOT_FINITE, message="The loss became NaN.")
    end = {"result": RESULT} if phase == "Succeeded" else {"failure": failure}
    ready, stalled = earlier_conditions(Reason.SUCCEEDED, ready=True)
    hidden = stalled.model_copy(update={"status": "True", "reason": reason})
    if phase == "Failed" or reason == Reason.INVALID_SPEC:
        ready = ready.model_copy(update={"status": "False", "reason": reason})
    status = trained_status(phase=phase, conditions=[ready, hidden], completion_time=ago(9), **end)
    result = decide(observed_job(status))
    assert result.decision.phase == phase
    assert result.decision.reason == ("Succeeded" if phase == "Succeeded" else "LossNotFinite")
    assert (result.decision.ready, result.decision.stalled) == (phase == "Succeeded", phase == "Failed")
    again = decide(observed_job(result.status))
    assert again.status == result.status


def test_a_crash_before_the_new_runs_status_makes_nothing_twice() -> None:
    observed = observed_job(SUCCEEDED, job(SECOND_RUN), pods=(pod(SECOND_RUN),), spec=RERUN)
    result = decide(observed)
    assert (result.decision.deletes, result.status.preflight.job_name) == ((), SECOND_RUN)


USED = [EndedRun(run_id="2", phase="Succeeded", reason="Succeeded", completion_time=ago(9))]


def test_a_run_id_that_was_used_before_is_refused_and_takes_nothing_away() -> None:
    """A rollback in git, and forward again: the result of the run in between is there all the time."""
    before = decide(observed_job(SUCCEEDED.model_copy(update={"history": USED}))).status
    result = decide(observed_job(before, spec=RERUN))
    assert result.decision == Decision("Succeeded", "InvalidSpec", stalled=True, event="Warning InvalidSpec")
    assert "Choose one that was not used yet" in result.message
    told = {"conditions": result.status.conditions}
    assert result.status == before.model_copy(update=told), "the result, the run and its history"
    back = decide(observed_job(result.status))
    assert (back.decision.ready, back.decision.stalled, back.status.result) == (True, False, before.result)


def test_a_failed_run_stays_failed_while_a_used_run_id_is_refused() -> None:
    before = decide(observed_job(FAILED.model_copy(update={"history": USED}))).status
    result = decide(observed_job(before, spec=RERUN))
    assert result.decision.phase == "Failed"
    assert ConditionType.FAILED in {one.type for one in result.status.conditions}


def test_what_runs_goes_on_while_a_used_run_id_is_refused() -> None:
    """Its result is taken once the spec is its own again: that tells which model was to be tuned."""
    status = trained_status().model_copy(update={"history": USED})
    running = observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=RERUN)
    refused = decide(running)
    assert refused.decision == Decision("Training", "InvalidSpec", stalled=True, event="Warning InvalidSpec")
    assert (refused.status.run_id, refused.status.attempt) == ("1", status.attempt)
    over = observed_job(
        refused.status, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),), spec=RERUN
    )
    waits = decide(over)
    assert waits.status == refused.status
    assert decide(replace(over, spec=job_spec())).status.result == RESULT


def test_a_used_run_id_may_be_suspended_and_set_back() -> None:
    status = trained_status().model_copy(update={"history": USED})
    spec = job_spec(runId="2", suspend=True)
    stopping = decide(observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=spec))
    assert (stopping.decision.reason, stopping.status.run_id) == ("Stopping", "1")
    suspended = decide(observed_job(stopping.status, spec=spec))
    assert suspended.decision.phase == "Suspended"
    again = decide(observed_job(suspended.status))
    assert again.decision.phase == "Queued"
    assert again.status.attempt.number == 2


@pytest.mark.parametrize("before", [SUCCEEDED, FAILED], ids=["Succeeded", "Failed"])
def test_another_spec_under_the_runs_own_run_id_is_no_part_of_it(before: FineTuneJobStatus) -> None:
    """runId changed and set back between two looks, with another spec: the API server compares neighbours only."""
    seen = before.model_copy(update={"observed_generation": 1})
    changed = replace(observed_job(seen, spec=job_spec(hyperparameters={"epochs": 7})), generation=3)
    for _ in range(2):
        result = decide(changed)
        assert (result.decision.reason, result.decision.stalled) == ("InvalidSpec", True)
        assert "Choose a runId that was not used yet: a new run begins with this spec." in result.message
        assert (result.status.phase, result.status.result) == (before.phase, before.result)
        changed = replace(changed, status=result.status)
    kept = decide(replace(changed, spec=job_spec(ttlSecondsAfterFinished=60), generation=4))
    assert kept.decision.stalled == (before.phase == "Failed")
    assert kept.decision.reason != "InvalidSpec"


def test_a_spec_that_was_looked_at_already_is_the_runs_whatever_its_digest() -> None:
    """Another version's digest, with other defaults, is no sign of a change."""
    seen = SUCCEEDED.model_copy(update={"observed_generation": 1, "run_digest": "ofothers"})
    assert decide(observed_job(seen)).decision.phase == "Succeeded"
    assert not decide(observed_job(seen)).decision.stalled


def test_a_new_run_may_be_suspended_at_once() -> None:
    result = decide(observed_job(SUCCEEDED, spec=job_spec(runId="2", suspend=True)))
    assert result.decision == Decision("Suspended", "Suspended", event="Normal Suspended")
    assert (result.status.run_id, len(result.status.history)) == ("2", 1)


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
        platform=resolved_class(limits={"activeDeadlineSeconds": 1}),
    )
    result = decide(observed)
    assert (result.decision.phase, result.decision.again_in) == (phase, again_in)
    if phase == "Failed":
        assert result.decision.reason == "DeadlineExceeded"
        assert "Raise activeDeadlineSeconds and change runId" in result.message
        assert result.status.ended_attempts[-1].reason == "DeadlineExceeded"
        assert decide(replace(observed, status=result.status)).decision.deletes == with_config_map(TRAIN_1)


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
            platform=resolved_class(limits={"activeDeadlineSeconds": of_class}),
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
        job_status(start_time=ago(100)), spec=job_spec(activeDeadlineSeconds=100), platform=CLASS_NOT_FOUND
    )
    assert decide(observed).decision.reason == "DeadlineExceeded"


# After the end.


def finished(**changes: Any) -> FineTuneJobStatus:
    return trained_status(
        **{
            "phase": "Succeeded",
            "result": RESULT,
            "completion_time": ago(100),
            "conditions": earlier_conditions(Reason.SUCCEEDED, ready=True),
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("ttl", "deletes", "again_in"),
    [(None, (), None), (160, (), 60), (100, with_config_map(TRAIN_1), None), (0, with_config_map(TRAIN_1), None)],
)
def test_ttl_removes_the_pods_and_never_the_status(
    ttl: int | None, deletes: tuple[str, ...], again_in: float | None
) -> None:
    observed = observed_job(finished(), job(TRAIN_1, "Complete"), spec=job_spec(ttlSecondsAfterFinished=ttl))
    result = decide(observed)
    assert result.decision == Decision("Succeeded", "Succeeded", ready=True, deletes=deletes, again_in=again_in)
    assert result.status == finished(observed_generation=1)


def test_what_still_runs_after_the_end_is_ended() -> None:
    observed = observed_job(finished(), job(TRAIN_1), job(TRAIN_2, "Complete"))
    result = decide(observed)
    assert result.decision == Decision("Succeeded", "Succeeded", ready=True, deletes=with_config_map(TRAIN_1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spec": job_spec(suspend=True)},
        {"platform": CLASS_NOT_FOUND},
        {"platform": resolved_class(sources={"models": []})},
        {"spec": job_spec(activeDeadlineSeconds=1)},
    ],
    ids=["its Job is gone", "suspended", "class gone", "source no longer allowed", "deadline"],
)
def test_a_finished_run_stays_finished(changes: dict[str, Any]) -> None:
    assert decide(observed_job(finished(), **changes)).decision == Decision("Succeeded", "Succeeded", ready=True)


# Statuses of other times.


def test_a_status_of_which_a_part_is_missing_is_made_good() -> None:
    """As a restored backup may have it: preflight succeeded, but what it resolved is not there."""
    result = decide(observed_job(trained_status(resolved=None, attempt=None)))
    assert result.decision.writes[-1] == f"Job/{PREFLIGHT_2}"


def test_a_reason_of_another_version_does_not_stop_the_plan() -> None:
    status = job_status(preflight=preflight_status(succeeded=False, retry_time=later(5)))
    condition = Condition(
        type=ConditionType.STALLED,
        status="True",
        reason="QuantumDecay",
        message="from the future",
        observed_generation=1,
        last_transition_time=ago(5),
    )
    failure = {"reason": "QuantumDecay", "message": "from the future"}
    wire = status.to_wire() | {"conditions": [condition.to_wire()], "failure": failure}
    assert decide(observed_job(FineTuneJobStatus.from_wire(wire))).decision.reason == "Failed"
