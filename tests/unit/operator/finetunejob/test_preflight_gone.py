"""A preflight Pod that is gone: no Job's status says how it ended."""

from __future__ import annotations

import pytest

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.kube.resources import PODS
from tests.unit.operator.finetunejob.beginnings import decide
from tests.unit.operator.states import (
    NOW,
    PREFLIGHT_1,
    Decision,
    job,
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
)


@pytest.mark.parametrize(("tries", "seconds"), [(1, 10), (2, 20), (9, 600)])
def test_a_preflight_pod_that_is_gone_was_disrupted_and_another_one_is_made_ever_later(
    tries: int, seconds: float
) -> None:
    """Somebody deleted it, or its node is gone, or it was removed before its end was seen: nothing tells which."""
    gone = decide(observed_job(job_status(preflight=preflight_status(try_number=tries))))
    assert gone.decision == Decision("Validating", "Validating", again_in=seconds)
    assert gone.status.preflight == preflight_status(try_number=tries, succeeded=False, retry_time=later(seconds))
    assert gone.status.failure is None
    assert gone.message.startswith("The preflight Pod was disrupted. Preflight starts again at ")
    again = decide(observed_job(_at_once(gone.status)))
    assert [write.partition("/")[0] for write in again.decision.writes] == ["Pod"]
    assert again.status.preflight.try_number == tries + 1


def test_a_preflight_pod_that_is_being_deleted_is_not_said_to_check_anything() -> None:
    """A drained node takes its grace period, and one that does not answer takes minutes."""
    going = job(PREFLIGHT_1, role="preflight", resource=PODS, deleting=True)
    states = pod(PREFLIGHT_1, deletion_time=later(30))
    found = decide(observed_job(job_status(preflight=preflight_status()), going, pods=(states,)))
    assert (found.decision.reason, found.decision.writes) == ("Validating", ())
    assert found.message == f"Pod {PREFLIGHT_1} of preflight is being deleted. Once it is gone, another one starts."


def _at_once(status: FineTuneJobStatus) -> FineTuneJobStatus:
    assert status.preflight is not None
    return status.model_copy(update={"preflight": status.preflight.model_copy(update={"retry_time": NOW})})
