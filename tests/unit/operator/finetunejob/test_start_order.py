"""What a preflight and an attempt wait for before they start: the same things, in the same order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.conditions import Reason
from finetune_operator.budgets.observed import ObservedBudget
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    attempt_status,
    ended_attempt,
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
    reason_of,
    resolved_class,
    trained_status,
)

FAILED = ended_attempt(outcome="Failed", reason="StorageUnreachable", message="It did not answer.")
USED_UP = ObservedBudget("finetune-system", (), "2026-11", "cpu", {"another": 7200})
ONE_HOUR = resolved_class(limits={"acceleratorHoursPerMonth": 1}, accelerator={})


def told(observed: ObservedFineTuneJob) -> tuple[str, str]:
    """The reason, and the start of the message, once everything is in the way that can be."""
    status = plan(observed, NOW).status
    return reason_of(status), status.conditions[0].message[:12]


@pytest.mark.parametrize("next_is", ["preflight", "attempt"])
def test_a_preflight_and_an_attempt_wait_for_the_same_in_the_same_order(next_is: str) -> None:
    """Time, Pods of before, the class, and (of an attempt) the budget."""
    retried = preflight_status(succeeded=False, retry_time=later(60))
    status = (
        job_status(preflight=retried)
        if next_is == "preflight"
        else trained_status(attempt_status(state="Failed", retries=1, next_time=later(60)), ended_attempts=[FAILED])
    )
    waits_for = Reason.VALIDATING if next_is == "preflight" else Reason.RETRYING
    earlier = pod("of-an-earlier-job", name="earlier")
    observed = observed_job(status, pods=(earlier,), class_=CLASS_NOT_FOUND, budget=USED_UP)
    assert told(observed)[0] == waits_for
    assert plan(observed, NOW).requeue_at == later(60)

    on_time = replace(observed, status=_with_time_over(observed))
    assert told(on_time) == (waits_for, "Waiting for ")
    alone = replace(on_time, pods=())
    assert told(alone)[0] == Reason.CLASS_NOT_FOUND
    admitted = replace(alone, class_=ONE_HOUR)
    made = [item["kind"] for item in plan(admitted, NOW).create]
    if next_is == "preflight":
        assert made == ["Pod"]  # it has no accelerator
    else:
        assert (told(admitted)[0], made) == (Reason.BUDGET_EXCEEDED, [])
        for waiting in (on_time, alone, admitted):
            message = plan(waiting, NOW).status.conditions[0].message
            assert message.endswith(" Attempt 1 failed (StorageUnreachable: It did not answer.)")
        assert "Job" in [item["kind"] for item in plan(replace(admitted, budget=None), NOW).create]


def _with_time_over(observed: ObservedFineTuneJob) -> object:
    status = observed.status
    if status.attempt is not None:
        return status.model_copy(update={"attempt": status.attempt.model_copy(update={"next_time": NOW})})
    assert status.preflight is not None
    return status.model_copy(update={"preflight": status.preflight.model_copy(update={"retry_time": NOW})})
