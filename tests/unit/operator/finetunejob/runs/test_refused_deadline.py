"""The deadline of a FineTuneJob while its spec is refused: what runs ends by its own, and its clock may stand still."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.finetunejob import EndedRun, FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.finetunejob.attempt_state import FINISHED
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.observed import JobView
from tests.unit.operator.finetunejob.runs.runs import decide, stopped_status
from tests.unit.operator.states import (
    NOW,
    PREFLIGHT_1,
    TRAIN_1,
    ago,
    attempt_status,
    decided,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
    resolved_class,
    trained_status,
)

USED = [EndedRun(run_id="2", phase="Failed", reason="Failed", completion_time=ago(9))]


@pytest.mark.parametrize(
    "refused",
    [
        observed_job(
            trained_status(attempt_status(class_deadline_seconds=200), history=USED),
            spec=job_spec(runId="2", activeDeadlineSeconds=60),
        ),
        replace(
            observed_job(
                trained_status(observed_generation=1),
                spec=job_spec(hyperparameters={"epochs": 7}, activeDeadlineSeconds=200),
            ),
            generation=3,
        ),
    ],
    ids=["a used runId: the class's", "another spec under its runId: the spec's"],
)
def test_a_run_whose_spec_is_refused_ends_at_its_deadline(refused: ObservedFineTuneJob) -> None:
    running = replace(refused, jobs=(job(TRAIN_1),), pods=(pod(TRAIN_1),))
    goes_on = decide(running)
    assert (goes_on.decision.phase, goes_on.decision.reason, goes_on.decision.again_in) == (
        "Training",
        "InvalidSpec",
        80,
    )
    over = decided(plan(replace(running, status=goes_on.status), later(80)), later(80))
    assert (over.decision.phase, over.decision.reason) == ("Failed", "DeadlineExceeded")


def test_a_deadline_in_a_spec_with_a_used_run_id_ends_nothing() -> None:
    """A rollback in git to a spec whose deadline was shorter: it is not this run's."""
    status = trained_status(attempt_status(class_deadline_seconds=None), start_time=ago(3600), history=USED)
    rolled_back = job_spec(runId="2", activeDeadlineSeconds=600)
    result = decide(observed_job(status, job(TRAIN_1), pods=(pod(TRAIN_1),), spec=rolled_back))
    assert (result.decision.phase, result.decision.reason, result.decision.again_in) == (
        "Training",
        "InvalidSpec",
        None,
    )


@pytest.mark.parametrize(
    ("spec", "generation"),
    [
        (job_spec(runId="2", activeDeadlineSeconds=7200), 1),
        (job_spec(hyperparameters={"epochs": 7}, activeDeadlineSeconds=7200), 3),
    ],
    ids=["a used runId", "another spec under its runId"],
)
@pytest.mark.parametrize(
    ("status", "jobs"),
    [
        (stopped_status(history=USED, observed_generation=1), ()),
        (trained_status(start_time=ago(120), history=USED, observed_generation=1), (job(TRAIN_1, "Complete"),)),
        (
            job_status(preflight=preflight_status(), start_time=ago(120), history=USED, observed_generation=1),
            (job(PREFLIGHT_1, "Complete"),),
        ),
    ],
    ids=["it was suspended", "its attempt has ended", "its preflight has ended"],
)
def test_the_clock_stands_still_while_a_spec_is_refused_and_nothing_runs(
    status: FineTuneJobStatus, jobs: tuple[JobView, ...], spec: FineTuneJobSpec, generation: int
) -> None:
    """A spec that is set back finds the run as it was, however long that took."""
    limits = resolved_class(limits={"activeDeadlineSeconds": 7200})
    refused = replace(observed_job(status, *jobs, spec=spec, class_=limits), generation=generation)
    waits = decide(refused)
    assert (waits.decision.reason, waits.decision.again_in) == ("InvalidSpec", None)
    hours = 3 * 3600
    later_on = decided(plan(replace(refused, status=waits.status), later(hours)), later(hours))
    assert later_on.status == waits.status
    own = replace(refused, status=waits.status, spec=job_spec(activeDeadlineSeconds=7200), generation=generation + 1)
    back = plan(own, later(hours)).status
    assert back.phase not in FINISHED
    assert (back.suspend_time, back.failure) == (None, None)
    stood_still = NOW if status.suspend_time is None else status.suspend_time
    assert back.suspended_seconds == (later(hours) - stood_still).total_seconds()
