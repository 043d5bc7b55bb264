"""What becomes of an attempt whose Job somebody deleted, disowned or keeps from going."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.finetunejob import AttemptStatus, FineTuneJobSpec
from tests.unit.operator.finetunejob.attempts.attempt_states import (
    TRAIN_2_OBJECTS,
    TRAINING,
    decide,
)
from tests.unit.operator.states import (
    NOW,
    TRAIN_1,
    Decided,
    Decision,
    ago,
    attempt_status,
    ended_attempt,
    job,
    job_spec,
    observed_job,
    of_job,
    pod,
    trained_status,
)

NEXT_AT_ONCE = Decision("Retrying", "Retrying", again_in=1, event="Normal Retrying")


def test_a_job_that_somebody_deleted_is_a_disruption() -> None:
    result = decide(observed_job(trained_status(conditions=TRAINING)))
    assert result.decision == NEXT_AT_ONCE
    assert result.message == (
        "Attempt 1 was disrupted (JobDeleted: Its Job was deleted.) The next one resumes from the newest checkpoint."
    )


def test_nothing_starts_beside_a_job_whose_owner_references_were_removed() -> None:
    """Its Pods train on: a second attempt beside them would take the run from them."""
    theirs, running = job(TRAIN_1), pod(TRAIN_1)
    result = decide(observed_job(trained_status(conditions=TRAINING), pods=(running,), disowned=(theirs,)))
    ended = result.status.ended_attempts[-1]
    assert (ended.outcome, ended.reason) == ("Disrupted", "JobDisowned")
    due = result.status.model_copy(
        update={"attempt": result.status.attempt and result.status.attempt.model_copy(update={"next_time": ago(1)})}
    )
    waits = decide(observed_job(due, pods=(running,), disowned=(theirs,)))
    assert waits.decision == Decision("Retrying", "Retrying", again_in=15)
    assert f"kubectl delete job {TRAIN_1} -n team-a" in waits.message
    no_pods_yet = decide(observed_job(due, disowned=(theirs,)))
    assert no_pods_yet.decision == waits.decision
    for gone in (
        observed_job(due),
        observed_job(due, pods=(pod(TRAIN_1, phase="Succeeded"),), disowned=(theirs,)),
        observed_job(due, disowned=(job(TRAIN_1, "Failed"),)),
        observed_job(due, job(TRAIN_1), disowned=()),
    ):
        assert decide(gone).decision.writes == (() if gone.jobs else TRAIN_2_OBJECTS)


@pytest.mark.parametrize("spec", [job_spec(suspend=True), job_spec(runId="2")])
def test_a_job_that_is_nobodys_is_waited_for_whatever_follows(spec: FineTuneJobSpec) -> None:
    status = trained_status(conditions=TRAINING)
    waits = decide(observed_job(status, pods=(pod(TRAIN_1),), disowned=(job(TRAIN_1),), spec=spec))
    assert waits.decision.reason == "Stopping"
    assert (waits.decision.writes, waits.decision.deletes) == ((), ())
    assert f"kubectl delete job {TRAIN_1} -n team-a" in waits.message


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    observed = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1, deleting=True))
    assert decide(observed).decision == Decision("Retrying", "Retrying", event="Normal Retrying")


HELD = job(TRAIN_1, deleting=True, finalizers=("backup.example.com/hold",))


def test_a_finalizer_of_somebody_elses_holds_no_run() -> None:
    """Its Pods run on: the garbage collector waits for the Job to be gone. They are told to stop."""
    held = observed_job(trained_status(conditions=TRAINING), HELD, pods=(pod(TRAIN_1),))
    ended = decide(held)
    assert (ended.decision.phase, ended.status.ended_attempts[-1].reason) == ("Retrying", "JobDeleted")
    assert "backup.example.com/hold" in ended.message
    assert f"kubectl patch job {TRAIN_1} -n team-a" in ended.message
    stops = decide(replace(held, status=ended.status.model_copy(update={"attempt": due_attempt(ended)})))
    assert stops.decision.deletes == of_job(TRAIN_1)
    assert "backup.example.com/hold" in stops.message
    ending = job(TRAIN_1, deleting=True, finalizers=(*HELD.finalizers, "foregroundDeletion"))
    waits = decide(replace(held, status=stops.status, jobs=(ending,)))
    assert (waits.decision.writes, waits.decision.deletes) == ((), ())
    goes_on = decide(replace(held, status=waits.status, jobs=(ending,), pods=()))
    assert goes_on.decision.writes == TRAIN_2_OBJECTS


def due_attempt(found: Decided) -> AttemptStatus:
    """The attempt of this status, whose successor may start now."""
    attempt: AttemptStatus = found.status.attempt
    return attempt.model_copy(update={"next_time": NOW})


def test_suspending_stops_the_pods_of_a_job_that_a_finalizer_keeps() -> None:
    status = trained_status(attempt_status(state="Suspended"), ended_attempts=[ended_attempt(1, "Suspended")])
    stops = decide(observed_job(status, HELD, pods=(pod(TRAIN_1),), spec=job_spec(suspend=True)))
    assert (stops.decision.reason, stops.decision.deletes) == ("Stopping", of_job(TRAIN_1))
    assert "backup.example.com/hold" in stops.message
    stopped = decide(observed_job(stops.status, HELD, spec=job_spec(suspend=True)))
    assert stopped.decision.reason == "Suspended"


def test_a_deleted_job_is_not_waited_for_beside_a_node_that_does_not_answer() -> None:
    deleted = job(TRAIN_1, deleting=True, finalizers=("foregroundDeletion",))
    lost = pod(TRAIN_1, deletion_time=ago(10_000))
    ended = decide(observed_job(trained_status(conditions=TRAINING), deleted, pods=(lost,)))
    assert ended.status.ended_attempts[-1].reason == "JobDeleted"
