"""Another runId of a FineTuneJob: the next run, and what is kept of the one before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, StartingModel
from finetune_api.lifecycle import FailureStatus
from finetune_operator.environment import Environment
from finetune_operator.finetunejob.kind import finetunejob
from finetune_operator.finetunejob.objects import preflight_pod_name
from finetune_operator.finetunejob.plan import plan
from finetune_operator.finetunejob.run_identity import run_digest
from tests.unit.operator.finetunejob.runs.runs import (
    IN_PREFLIGHT,
    IN_TRAINING,
    USAGE,
    carried_out,
    decide,
    stopped,
    stopped_status,
)
from tests.unit.operator.states import (
    NOW,
    OWNER,
    PREFLIGHT_1,
    RESULT,
    STORAGE_URI,
    TRAIN_1,
    TRAIN_REPORT,
    Decision,
    ago,
    attempt_status,
    earlier_conditions,
    job,
    job_spec,
    observed_job,
    pod,
    succeeded_pod,
    trained_status,
)

# Another runId.


RERUN = job_spec(runId="2")
SECOND_RUN = preflight_pod_name(OWNER, f"2-{run_digest(RERUN, 2)}", 1)
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
    writes=(f"Pod/{SECOND_RUN}",),
    again_in=15,
)


@pytest.mark.parametrize(
    ("status", "event"),
    [(SUCCEEDED, None), (FAILED, "Normal Validating")],
    ids=["after success", "after failure"],
)
def test_another_run_id_starts_over(status: FineTuneJobStatus, event: str | None) -> None:
    result = decide(observed_job(status, job(TRAIN_1, "Complete"), spec=RERUN))
    assert result.decision == replace(NEW_RUN, event=event)
    fresh = result.status
    assert (fresh.run_id, fresh.start_time, fresh.attempt, fresh.result) == ("2", NOW, None, None)
    assert fresh.storage_uri.endswith(f"/router/2-{run_digest(RERUN, 2)}-0f3c2a91")
    assert fresh.usage == status.usage


def test_the_previous_run_is_in_the_history() -> None:
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
    assert waits.message.startswith("runId changed from '1' to '2'. Waiting for 1 Pod to save and end, by 12:00:40")
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
    assert "Use a new one" in result.message
    told = {"conditions": result.status.conditions}
    assert result.status == before.model_copy(update=told), "the result, the run and its history"
    back = decide(observed_job(result.status))
    assert (back.decision.ready, back.decision.stalled, back.status.result) == (True, False, before.result)


def test_a_failed_run_stays_failed_while_a_used_run_id_is_refused() -> None:
    before = decide(observed_job(FAILED.model_copy(update={"history": USED}))).status
    result = decide(observed_job(before, spec=RERUN))
    assert result.decision.phase == "Failed"
    assert ConditionType.FAILED in {one.type for one in result.status.conditions}


def test_a_running_attempt_continues_while_a_used_run_id_is_refused() -> None:
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
    assert waits.status == refused.status.model_copy(update={"suspend_time": NOW}), (
        "nothing runs: the clock stands still"
    )
    assert decide(replace(over, spec=job_spec())).status.result == RESULT


@pytest.mark.parametrize("suspend", [False, True])
def test_what_a_run_ends_with_is_taken_while_its_spec_is_refused(suspend: bool) -> None:
    """A suspension that comes after the end stops nothing: the result is there, and nothing is trained twice."""
    model = StartingModel(uri=job_spec().model.uri)
    status = trained_status(starting_model=model).model_copy(update={"history": USED})
    ended = (job(TRAIN_1, "Complete"),)
    spec = job_spec(runId="2", suspend=suspend)
    over = observed_job(status, *ended, pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),), spec=spec)
    taken = decide(over)
    assert (taken.decision.phase, taken.status.result, taken.status.run_id) == ("Succeeded", RESULT, "1")
    refused = decide(replace(over, status=taken.status))
    assert (refused.decision.phase, refused.decision.reason) == ("Succeeded", "InvalidSpec")
    back = decide(observed_job(refused.status, *ended))
    assert (back.decision.phase, back.decision.writes) == ("Succeeded", ())


def test_a_failure_of_an_attempt_is_counted_while_its_spec_is_refused() -> None:
    status = trained_status().model_copy(update={"history": USED})
    failed = observed_job(status, job(TRAIN_1, "Failed"), spec=job_spec(runId="2", suspend=True))
    assert decide(failed).status.ended_attempts[-1].outcome != "Suspended"


def test_a_used_run_id_may_be_suspended_and_set_back() -> None:
    status = trained_status().model_copy(update={"history": USED})
    spec = job_spec(runId="2", suspend=True)
    stopping = decide(observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=spec))
    assert (stopping.decision.reason, stopping.status.run_id) == ("Stopping", "1")
    assert "spec.runId '2' was used by an earlier run" in stopping.message
    suspended = decide(observed_job(stopping.status, spec=spec))
    assert suspended.decision.phase == "Suspended"
    assert suspended.message.startswith("spec.suspend is true; nothing is running.")
    assert "The spec is refused, too, and nothing resumes with it: spec.runId '2' was used" in suspended.message
    again = decide(observed_job(suspended.status))
    assert again.decision.phase == "Queued"
    assert again.status.attempt.number == 2


def test_the_time_of_a_suspension_under_a_used_run_id_does_not_count_for_the_deadline() -> None:
    status = stopped_status(start_time=ago(3700), suspend_time=None).model_copy(update={"history": USED})
    spec = job_spec(runId="2", suspend=True, activeDeadlineSeconds=7200)
    suspended = plan(observed_job(status, spec=spec), NOW).status
    assert (suspended.phase, suspended.suspend_time) == ("Suspended", NOW)
    set_back = observed_job(suspended, spec=job_spec(activeDeadlineSeconds=7200))
    again = plan(set_back, NOW + timedelta(days=2)).status
    assert (again.phase, again.suspended_seconds) == ("Queued", 2 * 24 * 3600)


@pytest.mark.parametrize("before", [SUCCEEDED, FAILED], ids=["Succeeded", "Failed"])
def test_another_spec_under_the_runs_own_run_id_is_no_part_of_it(before: FineTuneJobStatus) -> None:
    """runId changed and set back between two looks, with another spec: the API server compares neighbours only."""
    seen = before.model_copy(update={"observed_generation": 1})
    changed = replace(observed_job(seen, spec=job_spec(hyperparameters={"epochs": 7})), generation=3)
    for _ in range(2):
        result = decide(changed)
        assert (result.decision.reason, result.decision.stalled) == ("InvalidSpec", True)
        assert "Use a new runId to start a run with this spec." in result.message
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


def test_a_job_whose_next_run_waits_for_the_pods_of_the_last_is_not_finished() -> None:
    """It keeps the phase of the run before meanwhile; it is remembered, and looked at again."""
    is_finished = finetunejob(Environment()).is_finished
    ending = observed_job(SUCCEEDED, job(TRAIN_1, "Complete"), pods=(pod(TRAIN_1),))
    assert is_finished(decide(ending).status)
    waits = decide(replace(ending, spec=RERUN))
    assert (waits.decision.phase, waits.decision.reason) == ("Succeeded", "Stopping")
    assert not is_finished(waits.status)
