"""status.attempt.state, as this version writes it, and what is made of statuses that know no state.

Nearly all statuses in the other tests are of that kind: an earlier version could have written them.
"""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.finetunejob import AttemptState, FineTuneJobStatus
from finetune_operator.finetunejob.attempt_state import attempt_state, running_attempt
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.states import (
    LOSS_NOT_FINITE,
    NETWORK_FAILURE,
    NOW,
    RESULT,
    TRAIN_1,
    TRAIN_2,
    TRAIN_REPORT,
    ago,
    attempt_status,
    decided,
    ended_attempt,
    failed_pod,
    job,
    job_spec,
    later,
    observed_job,
    pod,
    succeeded_pod,
    trained_status,
)


def wire_of_an_earlier_version(status: FineTuneJobStatus) -> dict[str, Any]:
    wire = status.to_wire()
    wire.get("attempt", {}).pop("state", None)
    return wire


RETRIED = trained_status(
    attempt_status(retries=1, next_time=later(5)), phase="Retrying", ended_attempts=[ended_attempt(1, "Failed")]
)
PREEMPTED = trained_status(
    attempt_status(disruptions=1, next_time=later(5)), phase="Retrying", ended_attempts=[ended_attempt(1, "Disrupted")]
)
SUSPENDED = trained_status(phase="Suspended", ended_attempts=[ended_attempt(1, "Suspended")])
SUCCEEDED = trained_status(
    phase="Succeeded", result=RESULT, completion_time=ago(5), ended_attempts=[ended_attempt(1, "Succeeded")]
)


@pytest.mark.parametrize(
    ("before", "state"),
    [
        (trained_status(phase="Queued"), "Pending"),
        (trained_status(phase="Training"), "Running"),
        (RETRIED, "Failed"),
        (PREEMPTED, "Disrupted"),
        (SUSPENDED, "Suspended"),
        (SUCCEEDED, "Succeeded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_earlier_versions_status_tells_the_state_by_its_phase_and_the_record(
    before: FineTuneJobStatus, state: AttemptState
) -> None:
    status = FineTuneJobStatus.read(wire_of_an_earlier_version(before))
    assert attempt_state(status) == state
    assert (running_attempt(status) is not None) is (state in ("Pending", "Running"))


@pytest.mark.parametrize(
    ("before", "phase", "reason"),
    [
        (trained_status(phase="Training"), "Training", "Training"),
        (RETRIED, "Retrying", "Retrying"),
        (PREEMPTED, "Retrying", "Retrying"),
        (SUCCEEDED, "Succeeded", None),
    ],
    ids=["trains", "failed", "was preempted", "is over"],
)
def test_a_run_of_an_earlier_version_goes_on_where_it_is_and_nothing_is_made(
    before: FineTuneJobStatus, phase: str, reason: str | None
) -> None:
    status = FineTuneJobStatus.read(wire_of_an_earlier_version(before))
    trains = (pod(TRAIN_1),) if phase == "Training" else ()
    jobs = (job(TRAIN_1, "Active" if trains else "Failed"),)
    made = plan(observed_job(status, *jobs, pods=trains), NOW)
    assert (made.create, made.status.phase, made.status.ended_attempts) == ((), phase, before.ended_attempts)
    assert reason is None or made.status.conditions[0].reason == reason


def test_an_end_that_an_older_version_recorded_wins_over_the_state_that_it_does_not_know() -> None:
    """After a rollback: it keeps the state as an unknown field, and writes the record only."""
    stale = attempt_status(state="Running", retries=1, next_time=later(5))
    status = trained_status(stale, phase="Retrying", ended_attempts=[ended_attempt(1, "Failed", reason="Failed")])
    assert attempt_state(status) == "Failed"
    result = decided(plan(observed_job(status, job(TRAIN_1, "Failed")), NOW))
    assert (result.decision.phase, result.decision.writes) == ("Retrying", ())


def state_after(status: FineTuneJobStatus, *jobs: Any, **observed: Any) -> AttemptState | None:
    written = plan(observed_job(status, *jobs, **observed), NOW).status.attempt
    return None if written is None else written.state


def test_the_state_is_written_at_every_step_of_an_attempt() -> None:
    ready_to_train = trained_status(phase="Queued").model_copy(update={"attempt": None})
    made = plan(observed_job(ready_to_train), NOW).status
    assert state_after(ready_to_train) == "Pending"
    assert state_after(made, job(TRAIN_1), pods=(pod(TRAIN_1, phase="Pending"),)) == "Pending"
    runs = plan(observed_job(made, job(TRAIN_1), pods=(pod(TRAIN_1),)), NOW).status
    assert runs.attempt is not None and runs.attempt.state == "Running"
    assert state_after(runs) == "Disrupted"
    assert state_after(runs, job(TRAIN_1), spec=job_spec(suspend=True)) == "Suspended"
    assert state_after(runs, job(TRAIN_1), spec=job_spec(runId="2")) == "Superseded"
    for answer in (NETWORK_FAILURE, LOSS_NOT_FINITE):
        assert state_after(runs, job(TRAIN_1, "Failed"), pods=(failed_pod(TRAIN_1, answer),)) == "Failed"
    done = succeeded_pod(TRAIN_1, TRAIN_REPORT)
    assert state_after(runs, job(TRAIN_1, "Complete"), pods=(done,)) == "Succeeded"


def test_an_attempt_that_was_replaced_is_followed_by_the_next_one_in_the_same_look() -> None:
    made = plan(observed_job(trained_status(phase="Queued").model_copy(update={"attempt": None})), NOW).status
    outdated = job(TRAIN_1, digest="of another class")
    after = plan(observed_job(made, outdated, pods=(pod(TRAIN_1, phase="Pending"),)), NOW)
    (ended,) = after.status.ended_attempts
    assert (ended.number, ended.outcome) == (1, "Replaced")
    assert after.status.attempt is not None
    assert (after.status.phase, after.status.attempt.state) == ("Queued", "Replaced")
    gone = plan(observed_job(after.status), NOW).status.attempt
    assert gone is not None and (gone.job_name, gone.state) == (TRAIN_2, "Pending")
