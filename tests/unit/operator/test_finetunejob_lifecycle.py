"""FineTuneJob, what a person changes: suspend, resume, runId, deadlines, TTL; and what a crash leaves."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.objects import preflight_job_name
from finetune_operator.finetunejob.observe import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NETWORK_FAILURE,
    NOW,
    OWNER,
    PREFLIGHT_1,
    PREFLIGHT_2,
    RESULT,
    TRAIN_1,
    TRAIN_2,
    Decided,
    Decision,
    ago,
    attempt_status,
    decided,
    failed_pod,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
    resolved_class,
    standing_conditions,
    trained_status,
    with_config_map,
)

SUSPENDED = job_spec(suspend=True)
SUSPENDED_STATUS: dict[str, Any] = {"phase": "Suspended", "conditions": standing_conditions(Reason.SUSPENDED)}


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


# Suspend and resume.


@pytest.mark.parametrize(
    ("status", "running"),
    [
        (job_status(preflight=preflight_status(), conditions=standing_conditions(Reason.VALIDATING)), PREFLIGHT_1),
        (trained_status(conditions=standing_conditions(Reason.TRAINING)), TRAIN_1),
    ],
    ids=["in preflight", "in training"],
)
def test_suspend_ends_the_pods_wherever_the_run_is(status: FineTuneJobStatus, running: str) -> None:
    result = decide(observed_job(status, job(running), spec=SUSPENDED))
    assert result.decision == Decision(
        "Suspended", "Suspended", deletes=with_config_map(running), event="Normal Suspended"
    )


def test_a_job_that_is_being_deleted_is_not_deleted_again() -> None:
    observed = observed_job(trained_status(**SUSPENDED_STATUS), job(TRAIN_1, deleting=True), spec=SUSPENDED)
    assert decide(observed).decision == Decision("Suspended", "Suspended")


def test_a_job_that_is_suspended_from_the_start_makes_nothing() -> None:
    assert decide(observed_job(FineTuneJobStatus(), spec=SUSPENDED)).decision == Decision(
        "Suspended", "Suspended", event="Normal Suspended"
    )


def test_a_suspended_job_keeps_what_has_ended() -> None:
    observed = observed_job(trained_status(**SUSPENDED_STATUS), job(PREFLIGHT_1, "Complete"), spec=SUSPENDED)
    assert decide(observed).decision == Decision("Suspended", "Suspended")


def test_resume_in_training_starts_the_next_attempt_and_counts_nothing() -> None:
    result = decide(observed_job(trained_status(**SUSPENDED_STATUS)))
    assert (result.decision.phase, result.decision.writes[-1]) == ("Queued", f"Job/{TRAIN_2}")
    assert (result.status.attempt.number, result.status.attempt.disruptions) == (2, 0)


def test_resume_waits_for_the_job_that_is_still_being_deleted() -> None:
    observed = observed_job(trained_status(**SUSPENDED_STATUS), job(TRAIN_1, deleting=True))
    assert decide(observed).decision.writes == ()


def test_resume_in_preflight_checks_again() -> None:
    result = decide(observed_job(job_status(preflight=preflight_status(), **SUSPENDED_STATUS)))
    assert result.decision.writes == (f"ConfigMap/{PREFLIGHT_2}", f"Job/{PREFLIGHT_2}")


def test_resume_between_two_attempts_says_so() -> None:
    attempt = attempt_status(next_time=later(60), retries=1)
    result = decide(observed_job(trained_status(attempt, **SUSPENDED_STATUS), job(TRAIN_1, "Failed")))
    assert result.decision == Decision("Retrying", "Retrying", again_in=60, event="Normal Retrying")


def test_an_attempt_that_ended_while_suspended_is_judged_after_resume() -> None:
    observed = observed_job(
        trained_status(**SUSPENDED_STATUS), job(TRAIN_1, "Failed"), pods=(failed_pod(TRAIN_1, NETWORK_FAILURE),)
    )
    assert decide(observed).status.attempt.retries == 1


# Another runId.

SECOND_RUN = preflight_job_name(OWNER, "2", 1)


@pytest.mark.parametrize(
    "status",
    [
        trained_status(conditions=standing_conditions(Reason.TRAINING)),
        trained_status(
            phase="Succeeded",
            result=RESULT,
            completion_time=ago(9),
            conditions=standing_conditions(Reason.SUCCEEDED, ready=True),
        ),
        trained_status(
            phase="Failed", completion_time=ago(9), conditions=standing_conditions(Reason.FAILED, stalled=True)
        ),
    ],
    ids=["while it trains", "after success", "after failure"],
)
def test_another_run_id_starts_anew_and_ends_what_runs(status: FineTuneJobStatus) -> None:
    result = decide(observed_job(status, job(TRAIN_1), spec=job_spec(runId="2")))
    assert result.decision == Decision(
        "Validating",
        "Validating",
        writes=(f"ConfigMap/{SECOND_RUN}", f"Job/{SECOND_RUN}"),
        deletes=with_config_map(TRAIN_1),
        event="Normal Validating",
    )
    fresh = result.status
    assert (fresh.run_id, fresh.start_time, fresh.attempt, fresh.result) == ("2", NOW, None, None)
    assert fresh.storage_uri.endswith("/router/2-0f3c2a91")


def test_a_crash_before_the_new_runs_status_still_ends_the_old_runs_job() -> None:
    status = trained_status(conditions=standing_conditions(Reason.TRAINING))
    observed = observed_job(status, job(TRAIN_1), job(SECOND_RUN), spec=job_spec(runId="2"))
    assert decide(observed).decision.deletes == with_config_map(TRAIN_1)


# Deadlines.


@pytest.mark.parametrize(
    ("of_spec", "of_class", "age", "phase", "again_in"),
    [
        (100, None, 99, "Training", 1),
        (100, None, 100, "Failed", None),
        (None, 100, 99, "Training", 1),
        (None, 100, 100, "Failed", None),
        (50, 100, 60, "Failed", None),
        (None, None, 10_000_000, "Training", None),
        (315_360_000, None, 60, "Training", 315_359_940),
    ],
)
def test_a_run_ends_at_its_deadline(
    of_spec: int | None, of_class: int | None, age: float, phase: str, again_in: float | None
) -> None:
    status = trained_status(start_time=ago(age), conditions=standing_conditions(Reason.TRAINING))
    observed = observed_job(
        status,
        job(TRAIN_1),
        pods=(pod(TRAIN_1),),
        spec=job_spec(activeDeadlineSeconds=of_spec),
        platform=resolved_class(limits={"activeDeadlineSeconds": of_class}),
    )
    result = decide(observed)
    assert (result.decision.phase, result.decision.again_in) == (phase, again_in)
    if phase == "Failed":
        assert result.decision.reason == "DeadlineExceeded"
        assert result.decision.deletes == with_config_map(TRAIN_1)
        assert "Raise activeDeadlineSeconds and change runId" in result.message


# After the end.


def finished(**changes: Any) -> FineTuneJobStatus:
    return trained_status(
        **{
            "phase": "Succeeded",
            "result": RESULT,
            "completion_time": ago(100),
            "conditions": standing_conditions(Reason.SUCCEEDED, ready=True),
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
