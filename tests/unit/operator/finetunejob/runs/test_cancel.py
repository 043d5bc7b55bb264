"""A FineTuneJob that is cancelled: the run is over for good, what runs ends, and what was saved stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.finetunejob import FineTuneJobStatus, Progress
from finetune_operator.core.conditions import Readiness
from finetune_operator.environment import Environment
from finetune_operator.finetunejob.kind import finetunejob
from finetune_operator.models.resolve import tuned_model
from finetune_operator.pods.observed import LOST_POD_SECONDS
from tests.unit.operator.finetunejob.runs.runs import (
    IN_PREFLIGHT,
    IN_TRAINING,
    carried_out,
    decide,
    finished,
    stopped,
    stopped_status,
)
from tests.unit.operator.states import (
    NOW,
    OWNER,
    PREFLIGHT_1,
    TRAIN_1,
    Decision,
    ago,
    job,
    job_spec,
    observed_job,
    pod,
)

CANCELLED = job_spec(cancel=True)
REPORTED = Progress(
    step=30,
    total_steps=100,
    percent=30,
    epoch=0.9,
    estimated_remaining_seconds=600,
    estimated_remaining="10m",
    last_updated_time=NOW,
)


@pytest.mark.parametrize(
    ("status", "running", "phase"), [(IN_PREFLIGHT, PREFLIGHT_1, "Validating"), (IN_TRAINING, TRAIN_1, "Training")]
)
def test_it_is_cancelled_once_its_last_pod_has_saved_and_ended(
    status: FineTuneJobStatus, running: str, phase: str
) -> None:
    observed = observed_job(status, job(running), pods=(pod(running),), spec=CANCELLED)
    waits, saving = stopped(observed, running, phase)
    assert waits.message.startswith("spec.cancel is true. Waiting for 1 Pod to save and end, by ")
    assert waits.status.completion_time is None
    assert not finetunejob(Environment()).is_finished(waits.status)
    over = decide(carried_out(waits, saving, pods=()))
    assert over.decision == Decision("Cancelled", "Cancelled", stalled=True, again_in=0, event="Normal Cancelled")
    assert over.status.completion_time == NOW
    assert finetunejob(Environment()).is_finished(over.status)


def test_a_pod_of_a_lost_node_holds_up_the_end_no_longer_than_anything_else() -> None:
    lost = pod(TRAIN_1, deletion_time=ago(LOST_POD_SECONDS + 1))
    stopping = decide(observed_job(IN_TRAINING, job(TRAIN_1), spec=CANCELLED)).status
    assert decide(observed_job(stopping, pods=(lost,), spec=CANCELLED)).decision.phase == "Cancelled"


def test_cancel_that_is_taken_back_before_the_end_lets_the_run_go_on_as_after_suspend() -> None:
    observed = observed_job(IN_TRAINING, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=CANCELLED)
    waits, saving = stopped(observed, TRAIN_1, "Training")
    still = decide(carried_out(waits, saving, spec=job_spec(), generation=2))
    assert (still.decision.phase, still.decision.reason, still.decision.writes) == ("Queued", "Queued", ())
    again = decide(carried_out(still, saving, spec=job_spec(), generation=2, pods=()))
    assert again.status.attempt is not None
    assert (again.status.attempt.number, again.status.attempt.retries, again.status.attempt.disruptions) == (2, 0, 0)


def test_a_cancelled_attempt_counts_nothing_and_its_checkpoints_stay() -> None:
    begun = decide(observed_job(IN_TRAINING, job(TRAIN_1), spec=CANCELLED))
    result = decide(observed_job(begun.status, spec=CANCELLED))
    (ended,) = result.status.ended_attempts
    assert (ended.number, ended.outcome, ended.step) == (1, "Cancelled", 30)
    assert result.status.checkpoints == IN_TRAINING.checkpoints
    assert f"Its checkpoints are kept in {IN_TRAINING.storage_uri}." in result.message


def test_nothing_of_a_cancelled_run_remains_to_be_done_whatever_its_pods_report_yet() -> None:
    training = IN_TRAINING.model_copy(update={"progress": REPORTED})
    cancelled = decide(observed_job(training, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=CANCELLED))
    assert cancelled.status.progress is not None
    assert cancelled.status.progress.step == REPORTED.step
    assert remaining(cancelled.status) == (None, None)
    reported = REPORTED.model_copy(update={"step": REPORTED.step + 1})
    later = replace(observed_job(cancelled.status, job(TRAIN_1), spec=CANCELLED), progress=reported)
    assert remaining(decide(later).status) == (None, None)
    over = replace(observed_job(decide(later).status, spec=CANCELLED), progress=reported)
    assert (decide(over).decision.phase, remaining(decide(over).status)) == ("Cancelled", (None, None))


def remaining(status: FineTuneJobStatus) -> tuple[int | None, str | None]:
    assert status.progress is not None
    return status.progress.estimated_remaining_seconds, status.progress.estimated_remaining


def test_it_stays_cancelled_until_run_id_changes() -> None:
    cancelled = decide(observed_job(stopped_status(), spec=CANCELLED))
    taken_back = replace(observed_job(cancelled.status), generation=2)
    assert decide(taken_back).decision.phase == "Cancelled"
    again = decide(observed_job(cancelled.status, spec=job_spec(runId="2")))
    assert again.decision.phase == "Validating"
    assert [(run.run_id, run.phase, run.reason) for run in again.status.history] == [("1", "Cancelled", "Cancelled")]


def test_failed_is_true_of_it_whatever_another_version_wrote() -> None:
    cancelled = decide(observed_job(IN_TRAINING, spec=CANCELLED)).status
    assert [(one.type, one.status) for one in cancelled.conditions] == [
        ("Ready", "False"),
        ("Stalled", "True"),
        ("Failed", "True"),
    ]
    unread = cancelled.model_copy(update={"conditions": []})
    again = decide(observed_job(unread, spec=CANCELLED))
    assert (again.decision.phase, again.decision.reason, again.decision.stalled) == ("Cancelled", "Cancelled", True)
    assert [one.type for one in again.status.conditions] == ["Ready", "Stalled", "Failed"]


def test_a_run_that_has_ended_is_not_cancelled() -> None:
    assert decide(observed_job(finished(), spec=CANCELLED)).decision.phase == "Succeeded"


def test_a_new_run_that_is_cancelled_from_the_start_runs_nothing() -> None:
    new = decide(observed_job(FineTuneJobStatus(), spec=CANCELLED))
    assert new.decision == Decision("Cancelled", "Cancelled", stalled=True, again_in=0, event="Normal Cancelled")
    after = decide(observed_job(finished(), spec=job_spec(cancel=True, runId="2")))
    assert (after.decision.phase, after.decision.writes) == ("Cancelled", ())
    assert [run.phase for run in after.status.history] == ["Succeeded"]


def test_who_waits_for_its_model_is_reported() -> None:
    status = decide(observed_job(IN_TRAINING, spec=CANCELLED)).status
    found = tuned_model("router", CANCELLED, status)
    assert isinstance(found, Readiness)
    assert found.stalled
    assert "'router' was cancelled" in found.message


def test_a_run_that_trained_nothing_has_kept_nothing() -> None:
    begun = IN_TRAINING.model_copy(update={"checkpoints": [], "progress": None})
    for status, running in ((IN_PREFLIGHT, PREFLIGHT_1), (begun, TRAIN_1)):
        stopping = decide(observed_job(status, job(running), spec=CANCELLED))
        over = decide(observed_job(stopping.status, spec=CANCELLED))
        assert over.decision.phase == "Cancelled"
        assert "kept in" not in over.message


def test_a_trial_of_a_sweep_is_not_advised_to_run_again_by_itself() -> None:
    trial = replace(observed_job(IN_TRAINING, spec=CANCELLED), owner=replace(OWNER, sweep="search"))
    message = decide(trial).message
    assert "It is part of FineTuneSweep 'search', where another run of it would not count." in message
    assert "runId" not in message
    assert "Change spec.runId" in decide(observed_job(IN_TRAINING, spec=CANCELLED)).message
