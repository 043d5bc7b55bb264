"""FineTuneJob, the result: what rank 0 reports, held against what was asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import CorruptCheckpoint
from finetune_api.pod_contracts.outcome import Failure, TrainReport
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.finetunejob.attempts.attempt_states import (
    EXIT_1,
    PROGRESS,
    TRAINING,
    decide,
    evicted,
    gang,
)
from tests.unit.operator.states import (
    CHECKPOINT,
    NOW,
    RESULT,
    STORAGE_URI,
    TRAIN_1,
    TRAIN_REPORT,
    Decision,
    job,
    observed_job,
    pod,
    succeeded_pod,
    told,
    trained_status,
)


def test_the_report_of_rank_0_is_the_result() -> None:
    status = trained_status(conditions=TRAINING, progress=PROGRESS)
    observed = observed_job(status, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),))
    result = decide(observed)
    assert result.decision == Decision("Succeeded", "Succeeded", ready=True, again_in=0, event="Normal Succeeded")
    assert result.message == f"The LoRA result of step 300 is in {RESULT.uri}. Validation loss 0.5000."
    assert result.status.result == RESULT
    assert result.status.checkpoints == [CHECKPOINT]
    assert result.status.completion_time == NOW
    assert [ended.outcome for ended in result.status.ended_attempts] == ["Succeeded"]
    assert (result.status.progress.percent, result.status.progress.estimated_remaining_seconds) == (100, 0)


def test_what_a_newer_version_knows_of_the_progress_is_kept_at_the_end() -> None:
    newer = type(PROGRESS).from_another_version({**PROGRESS.to_wire(), "joules": 7})
    status = trained_status(conditions=TRAINING, progress=newer)
    observed = observed_job(status, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),))
    progress = plan(observed, NOW).status.progress
    assert progress is not None
    assert progress.to_wire()["joules"] == 7


def test_without_any_report_the_progress_at_the_end_is_that_of_the_result() -> None:
    observed = observed_job(
        trained_status(conditions=TRAINING), job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, TRAIN_REPORT),)
    )
    progress = decide(observed).status.progress
    assert (progress.step, progress.total_steps, progress.percent, progress.eval_loss) == (300, 750, 100, 0.5)


def test_step_epoch_losses_and_rewards_at_the_end_are_all_those_of_the_result() -> None:
    """Early stopping and the best checkpoint: the last reports were of later steps."""
    last = PROGRESS.model_copy(update={"step": 700, "loss": 0.1, "reward": 0.9, "valid_reward": 0.8, "eval_step": 700})
    measured = {"train_loss": 0.3, "train_reward": 0.4, "eval_loss": None, "valid_reward": 0.5}
    report = TRAIN_REPORT.model_copy(update={"result": RESULT.model_copy(update=measured)})
    observed = observed_job(
        trained_status(conditions=TRAINING, progress=last),
        job(TRAIN_1, "Complete"),
        pods=(succeeded_pod(TRAIN_1, report),),
    )
    progress = plan(observed, NOW).status.progress
    assert progress is not None
    assert (progress.step, progress.loss, progress.reward, progress.valid_reward) == (300, 0.3, 0.4, 0.5)
    assert (progress.eval_step, progress.percent, progress.epoch) == (300, 100, 0.8)
    unknown = TRAIN_REPORT.model_copy(update={"result": RESULT.model_copy(update={"train_loss": None})})
    ended = observed_job(
        trained_status(conditions=TRAINING, progress=last),
        job(TRAIN_1, "Complete"),
        pods=(succeeded_pod(TRAIN_1, unknown),),
    )
    progress = plan(ended, NOW).status.progress
    assert progress is not None and (progress.loss, progress.reward) == (None, None)


def test_the_losses_at_the_end_have_as_many_digits_as_those_before() -> None:
    losses = {"train_loss": 0.11446395516395569, "eval_loss": 1.2345678}
    report = TRAIN_REPORT.model_copy(update={"result": TRAIN_REPORT.result.model_copy(update=losses)})
    observed = observed_job(
        trained_status(conditions=TRAINING), job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, report),)
    )
    progress = decide(observed).status.progress
    assert (progress.loss, progress.eval_loss) == (0.11446, 1.2346)


def test_right_after_a_resume_the_remaining_time_is_that_of_the_speed_before() -> None:
    before = trained_status(conditions=TRAINING, progress=PROGRESS)
    resumed = PROGRESS.model_copy(update={"step": 390, "estimated_remaining_seconds": None})
    status = decide(gang("Active", pod(TRAIN_1), pod(TRAIN_1, 1), status=before, progress=resumed)).status
    assert status.progress.estimated_remaining_seconds == 300


def test_a_report_of_success_counts_only_where_the_job_completed() -> None:
    """The next attempt finds the committed result, and is done with it."""
    result = decide(gang("Failed", succeeded_pod(TRAIN_1, TRAIN_REPORT), evicted(1)))
    assert (result.decision.phase, result.status.result) == ("Retrying", None)
    assert [ended.outcome for ended in result.status.ended_attempts] == ["Disrupted"]


OTHERS = "s3://models/finetune/team-b/theirs/1-deadbeef"


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"uri": f"{OTHERS}/result"}, "its result's uri is 's3://models/finetune/team-b/theirs/1-deadbeef/result'"),
        ({"uri": f"{STORAGE_URI}/../../../team-b/theirs/result"}, "which is outside the run's folder"),
        ({"uri": f"{STORAGE_URI}-2/result"}, "which is outside the run's folder"),
        ({"uri": STORAGE_URI}, "which is outside the run's folder"),
        ({"report_uri": "https://example.com/report.html"}, "its result's reportUri is 'https://example.com/"),
        ({"base_model_uri": "s3://models/another"}, "but the run started from 's3://models/base'"),
    ],
)
def test_what_a_pod_reports_is_held_against_what_was_asked(claim: dict[str, Any], words: str) -> None:
    report = TRAIN_REPORT.model_copy(update={"result": RESULT.model_copy(update=claim)})
    observed = observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, report),))
    result = decide(observed)
    assert (result.decision.phase, result.decision.reason) == ("Failed", Reason.REPORT_REFUSED)
    assert words in result.message
    assert result.status.result is None


def test_a_report_of_another_job_of_the_same_name_is_not_heard() -> None:
    stranger = succeeded_pod(TRAIN_1, TRAIN_REPORT)
    observed = observed_job(
        trained_status(), job(TRAIN_1, "Complete"), pods=(replace(stranger, job_uid="uid-of-an-earlier-one"),)
    )
    result = decide(observed)
    assert (result.decision.phase, result.status.result) == ("Retrying", None)


def test_only_checkpoints_of_the_run_stand_in_its_status() -> None:
    theirs = CHECKPOINT.model_copy(update={"uri": f"{OTHERS}/checkpoints/step-000200"})
    report = CheckpointReport(checkpoints=[theirs, CHECKPOINT])
    observed = observed_job(trained_status(), job(TRAIN_1), pods=(pod(TRAIN_1),), checkpoint_report=report)
    assert decide(observed).status.checkpoints == [CHECKPOINT]


def test_the_report_closes_the_ledger() -> None:
    report = TRAIN_REPORT.model_copy(
        update={"corrupt_checkpoints": [CorruptCheckpoint(step=100, message="x")], "checkpoint_seconds": 7.5}
    )
    before = trained_status(conditions=TRAINING, checkpoint_seconds=3.0)
    observed = observed_job(before, job(TRAIN_1, "Complete"), pods=(succeeded_pod(TRAIN_1, report),))
    status = decide(observed).status
    assert (status.corrupt_checkpoints, status.checkpoint_seconds) == (report.corrupt_checkpoints, 7.5)


def test_a_report_of_many_checkpoints_still_fits_the_status() -> None:
    report = TrainReport(result=RESULT, checkpoints=[CHECKPOINT.model_copy(update={"step": n}) for n in range(150)])
    ended = pod(TRAIN_1, 0, "Succeeded", exit_code=0, message=report.model_dump_json(by_alias=True))
    result = decide(observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=(ended,)))
    assert [checkpoint.step for checkpoint in result.status.checkpoints] == list(range(50, 150))


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity"])
def test_a_loss_that_is_no_number_is_left_out(loss: str) -> None:
    """Python's json writes NaN; the API server takes no such status."""
    message = told(TRAIN_REPORT).replace('"evalLoss":0.5', f'"evalLoss":{loss}')
    ended = pod(TRAIN_1, 0, "Succeeded", exit_code=0, message=message)
    result = decide(observed_job(trained_status(), job(TRAIN_1, "Complete"), pods=(ended,)))
    assert (result.decision.phase, result.status.result.eval_loss) == ("Succeeded", None)


@pytest.mark.parametrize(("retryable", "phase"), [(True, "Retrying"), (False, "Failed")])
def test_a_failure_of_another_version_is_still_reported(retryable: bool, phase: str) -> None:
    """Whether another attempt can help is its word, also where this version does not know the reason."""
    failure = Failure(reason=Reason.FAILED, message="The state decayed.", retryable=retryable)
    message = told(failure).replace('"Failed","message"', '"QuantumDecay","message"')
    assert "QuantumDecay" in message
    observed = observed_job(
        trained_status(), job(TRAIN_1, "Failed"), pods=(pod(TRAIN_1, 0, **EXIT_1, message=message),)
    )
    result = decide(observed)
    assert result.decision.phase == phase
    assert (result.status.failure.reason, result.status.failure.message) == ("Failed", failure.message)
