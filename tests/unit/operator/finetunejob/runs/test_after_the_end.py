"""A FineTuneJob after its end, and statuses of other versions."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Condition, ConditionType
from finetune_api.finetunejob import FineTuneJobStatus
from tests.unit.operator.finetunejob.runs.runs import decide, finished
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    PREFLIGHT_2,
    TRAIN_1,
    TRAIN_2,
    Decision,
    ago,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    of_job,
    preflight_status,
    resolved_class,
    trained_status,
)

# After the end.


@pytest.mark.parametrize(
    ("ttl", "deletes", "again_in"),
    [(None, (), None), (160, (), 60), (100, of_job(TRAIN_1), None), (0, of_job(TRAIN_1), None)],
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
    assert result.decision == Decision("Succeeded", "Succeeded", ready=True, deletes=of_job(TRAIN_1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spec": job_spec(suspend=True)},
        {"class_": CLASS_NOT_FOUND},
        {"class_": resolved_class(sources={"models": []})},
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
    assert result.decision.writes[-1] == f"Pod/{PREFLIGHT_2}"


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
