"""The end of a failed run is told for as long as the object stands, whatever another version has said in between."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import Failure
from finetune_operator.core.conditions import Readiness, conditions, failed, stalled
from finetune_operator.evaluation.plan import plan as plan_evaluation
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.evaluation_states import evaluation_status, observed_evaluation
from tests.unit.operator.states import (
    NOW,
    PREFLIGHT_1,
    ago,
    failed_pod,
    job,
    job_status,
    observed_job,
    preflight_status,
)

END = failed(Reason.DEADLINE_EXCEEDED, "The run did not end within activeDeadlineSeconds.")
FOUND = FailureStatus(reason=Reason.STORAGE_UNREACHABLE, message="The storage did not answer.")
UNREAD = stalled(Reason.STATUS_UNREADABLE, "Another version of the operator wrote it.")


def said(*standings: Readiness) -> list[Condition]:
    """The conditions after each of these was told in turn."""
    found: list[Condition] = []
    for readiness in standings:
        found = conditions(readiness, found, generation=1, now=ago(5))
    return found


def shown(found: Sequence[Condition]) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in found}


OVERWRITTEN = [one for one in said(END) if one.type != ConditionType.STALLED]
OVERWRITTEN += [one for one in said(UNREAD) if one.type == ConditionType.STALLED]
HIDDEN = {
    "only Stalled was overwritten": (OVERWRITTEN, Reason.DEADLINE_EXCEEDED),
    "an older version knew no Failed": (
        [one for one in said(END) if one.type != ConditionType.FAILED],
        Reason.DEADLINE_EXCEEDED,
    ),
    "every condition was overwritten": (said(END, stalled(Reason.INVALID_SPEC, "x")), Reason.STORAGE_UNREACHABLE),
}


@pytest.mark.parametrize(("before", "reason"), HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("kind", ["FineTuneJob", "Evaluation"])
def test_an_end_that_another_version_hid_is_reported_again(kind: str, before: list[Condition], reason: Reason) -> None:
    over = {"phase": "Failed", "completion_time": ago(9), "failure": FOUND, "conditions": before}
    if kind == "FineTuneJob":
        after = plan(observed_job(job_status(**over)), NOW).status.conditions
    else:
        after = plan_evaluation(observed_evaluation(evaluation_status(**over)), NOW).status.conditions
    assert shown(after) == {"Ready": ("False", reason), "Stalled": ("True", reason), "Failed": ("True", reason)}


def test_a_run_that_failed_by_its_spec_is_failed_at_every_later_look() -> None:
    status = job_status(preflight=preflight_status())
    words = Failure(reason=Reason.INVALID_SPEC, message="hyperparameters.maxLength is beyond the model's context.")
    ended = plan(
        observed_job(status, job(PREFLIGHT_1, "Failed", role="preflight"), pods=(failed_pod(PREFLIGHT_1, words),)), NOW
    )
    assert shown(ended.status.conditions)["Failed"] == ("True", "InvalidSpec")
    assert plan(observed_job(ended.status), NOW).status == ended.status
