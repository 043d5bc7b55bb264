"""One reconciliation of what another version wrote, or a plan gets wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.core.conditions import conditions, failed, ready
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.plan import Plan
from finetune_operator.environment import Environment
from finetune_operator.finetunejob.observe import observe
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object
from finetune_operator.runtime.reconciler.reconcile import reconcile
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import (
    EVENTS_PATH,
    JOBS_PATH,
    KEY,
    PARENT,
    PLAN,
    STATUS,
    STATUS_PATH,
    conditions_written,
    kube_with,
    planning,
)
from tests.unit.operator.states import JOB_WIRE, NOW, merged

# Finalizers.


async def test_a_stored_spec_that_does_not_parse_names_the_field() -> None:
    """As one that was stored before a rule was added."""
    broken = {**PARENT, "spec": merged(JOB_WIRE, {"retryLimit": "many"})}
    observe_job = partial(observe, environment=Environment())
    kube = kube_with(broken)
    await reconcile(kube, Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN), KEY)
    stalled = conditions_written(kube)[ConditionType.STALLED]
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert "retryLimit: Input should be a valid integer" in stalled["message"]


async def test_a_model_that_a_plan_gets_wrong_is_a_bug_and_no_fault_of_the_spec() -> None:
    def wrong(observed: Any, now: datetime) -> Plan[Any]:
        return replace(PLAN, status=FineTuneJobStatus.model_validate({"phase": 7}))

    kube = kube_with()
    with pytest.raises(ValidationError):
        await reconcile(kube, replace(planning(PLAN), plan=wrong), KEY)
    assert kube.writes == []


OVER = FineTuneJobStatus(
    phase="Failed", conditions=conditions(failed(Reason.DATASET_INVALID, "Line 7."), [], generation=1, now=NOW)
)


@pytest.mark.parametrize("how", ["the spec does not parse", "the API server refuses"])
async def test_a_run_that_is_over_keeps_its_condition_failed(how: str) -> None:
    before = {**PARENT, "metadata": {**PARENT["metadata"], "generation": 2}, "status": OVER.to_wire()}
    if how == "the API server refuses":
        refusal = ApiError(403, "Forbidden", "denied by a webhook")
        kube, reconciler = kube_with(before, refused={f"POST {JOBS_PATH}": refusal}), planning(PLAN)
    else:

        async def observe_job(kube: Kube, parent: Object) -> Any:
            return FineTuneJobSpec.from_wire({"model": 7})

        kube = kube_with(before)
        reconciler = Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN)
    await reconcile(kube, reconciler, KEY)
    written = conditions_written(kube)
    assert (written["Failed"]["status"], written["Failed"]["reason"]) == ("True", "DatasetInvalid")
    assert written["Stalled"]["reason"] != "DatasetInvalid"


async def test_what_was_judged_stays_judged_while_the_stored_spec_does_not_parse() -> None:
    """No deployment's gate changes its mind because of an upgrade of the operator."""
    judged = conditions(
        ready(Reason.EVALUATED, "0.9"),
        [],
        generation=1,
        now=NOW,
        passed=ready(Reason.GATES_PASSED, "Every gate passed."),
    )
    stored = FineTuneJobStatus(conditions=judged).to_wire()

    async def observe_job(kube: Kube, parent: Object) -> Any:
        return FineTuneJobSpec.from_wire({"model": 7})

    kube = kube_with({**PARENT, "metadata": {**PARENT["metadata"], "generation": 2}, "status": stored})
    await reconcile(kube, Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN), KEY)
    written = conditions_written(kube)
    assert written["Stalled"]["reason"] == "InvalidSpec"
    (before,) = [one for one in stored["conditions"] if one["type"] == "Passed"]
    assert written["Passed"] == before, "with the generation of the spec that was judged"


# Statuses of other versions.


async def plan_on(parent: dict[str, Any]) -> FakeKube:
    kube = kube_with(parent)
    await reconcile(kube, planning(PLAN), KEY)
    return kube


@pytest.mark.parametrize("strange", [{"phase": "Levitating"}, {"startTime": "soon"}, {"attempt": {"number": "one"}}])
async def test_on_a_status_that_can_not_be_read_nothing_is_written_but_a_condition(strange: dict[str, Any]) -> None:
    stored = {**STATUS.to_wire(), **strange}
    kube = await plan_on({**PARENT, "status": stored})
    assert kube.writes == [f"POST {EVENTS_PATH}", f"PATCH {STATUS_PATH}"], "nothing starts"
    request = kube.requests[-1]
    assert request.query["fieldManager"] == "finetune-operator-conditions"
    assert request.body is not None
    assert list(request.body["status"]) == ["conditions"]
    (condition,) = request.body["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Stalled", "True", "StatusUnreadable")
    told = await plan_on({**PARENT, "status": {**stored, "conditions": [condition]}})
    assert told.writes == [], "it is told once"


async def test_of_a_run_that_is_over_the_message_does_not_advise_to_remove_the_phase() -> None:
    """That would only be the next status that can't be read."""
    kube = await plan_on({**PARENT, "status": {"phase": "Exploding", "completionTime": "2026-11-22T12:00:00Z"}})
    assert conditions_written(kube)[ConditionType.STALLED]["message"].endswith(
        "status.phase is 'Exploding', though there is a completionTime. Nothing is changed and nothing starts. Run a "
        "version that can read it, or set status.phase to Succeeded, Failed or Cancelled, whichever it was "
        "(kubectl edit --subresource=status)."
    )


async def test_a_spec_that_does_not_parse_leaves_the_status_as_it_is() -> None:
    """The status is of another version, and the spec of another one still."""
    stored = {**STATUS.to_wire(), "addedLater": {"a": []}, "runId": "1"}
    broken = {**PARENT, "spec": {"model": 7}, "status": stored}

    async def observe_job(kube: Kube, parent: Object) -> Any:
        return FineTuneJobSpec.from_wire(parent["spec"])

    kube = kube_with(broken)
    await reconcile(kube, Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, lambda observed, now: PLAN), KEY)
    assert kube.requests[-1].body is not None
    written = kube.requests[-1].body["status"]
    kept = {name: value for name, value in stored.items() if name != "conditions" and value != []}
    assert {name: value for name, value in written.items() if name != "conditions"} == kept
