"""A status that may wait is kept in memory: it counts as stored, and the next one may spare its write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import EventNote
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.plan import Plan
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object
from finetune_operator.runtime.reconciler.reconcile import reconcile
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.runtime.reconciler.reconciled import (
    JOB,
    JOBS_PATH,
    KEY,
    PARENT,
    STATUS,
    STATUS_PATH,
    kube_with,
)

QUEUED = STATUS.model_copy(update={"phase": "Queued"})
TRAINING = STATUS.model_copy(update={"phase": "Training"})
TOLD = EventNote("Normal", "Training", "Attempt 1 is training on 1 node.")


@dataclass
class Planned:
    """A kind that makes the plans of a list, one after the other, and remembers the status that each was made of."""

    plans: list[tuple[Plan[FineTuneJobStatus], float | None]]
    """Each with the seconds from now until which its status may wait."""
    seen: list[str | None] = field(default_factory=list)

    def kind(self) -> Kind:
        async def observe(kube: Any, parent: Object) -> Object:
            return parent

        def plan(observed: Object, now: datetime) -> Plan[FineTuneJobStatus]:
            self.seen.append(observed.get("status", {}).get("phase"))
            made, seconds = self.plans.pop(0)
            return made if seconds is None else replace(made, status_due=now + timedelta(seconds=seconds))

        return Kind(FINE_TUNE_JOBS, FineTuneJobStatus, observe, plan)


def statuses_written(kube: FakeKube) -> list[str]:
    bodies = [request.body for request in kube.requests if request.line == f"PATCH {STATUS_PATH}"]
    return [body["status"]["phase"] for body in bodies if body is not None]


async def test_what_it_says_is_done_and_the_status_waits_until_it_is_due() -> None:
    kube = kube_with()
    again = await reconcile(kube, Planned([(Plan(QUEUED, create=(JOB,)), 3)]).kind(), KEY)
    assert kube.writes == [f"POST {JOBS_PATH}"]
    assert again == pytest.approx(3, abs=0.1)


async def test_the_next_plan_is_made_from_it_and_its_status_is_the_only_one_written() -> None:
    kube, planned = kube_with(), Planned([(Plan(QUEUED), 3), (Plan(TRAINING, events=(TOLD,)), None)])
    kind = planned.kind()
    await reconcile(kube, kind, KEY)
    await reconcile(kube, kind, KEY)
    assert planned.seen == [None, "Queued"]
    assert statuses_written(kube) == ["Training"]


@pytest.mark.parametrize(
    ("plan", "seconds"), [(Plan(QUEUED), -1), (Plan(QUEUED, events=(TOLD,)), 3)], ids=["due", "an Event is told"]
)
async def test_a_status_that_is_due_or_told_is_written(plan: Plan[FineTuneJobStatus], seconds: float) -> None:
    kube = kube_with()
    await reconcile(kube, Planned([(plan, seconds)]).kind(), KEY)
    assert statuses_written(kube) == ["Queued"]


async def test_it_is_written_once_it_is_due_though_nothing_has_changed() -> None:
    kube, planned = kube_with(), Planned([(Plan(QUEUED), 3), (Plan(QUEUED), 2), (Plan(QUEUED), -1)])
    kind = planned.kind()
    for _ in range(3):
        await reconcile(kube, kind, KEY)
    assert statuses_written(kube) == ["Queued"]


async def test_a_refusal_is_reported_with_what_was_held() -> None:
    refusal = ApiError(403, "Forbidden", "exceeded quota: gpus, requested: 8, limited: 4")
    kube, planned = kube_with(), Planned([(Plan(QUEUED), 3), (Plan(TRAINING, create=(JOB,)), None)])
    kind = planned.kind()
    await reconcile(kube, kind, KEY)
    kube.answers[f"POST {JOBS_PATH}"] = refusal
    await reconcile(kube, kind, KEY)
    assert statuses_written(kube) == ["Queued"]


CHANGED_SPEC = {**PARENT, "metadata": {**PARENT["metadata"], "generation": 2, "resourceVersion": "8"}}
ANOTHER = {**PARENT, "metadata": {**PARENT["metadata"], "uid": "uid-9"}}
FOREIGN = {**PARENT, "status": {"phase": "Validating"}}


@pytest.mark.parametrize(
    ("parent", "counts"),
    [(CHANGED_SPEC, "Queued"), (ANOTHER, None), (FOREIGN, "Validating")],
    ids=["its spec changed", "another object of its name", "somebody wrote the status"],
)
async def test_it_counts_for_the_status_that_it_replaces_alone(parent: Mapping[str, Any], counts: str | None) -> None:
    planned = Planned([(Plan(QUEUED), 3), (Plan(TRAINING), None)])
    kind = planned.kind()
    await reconcile(kube_with(), kind, KEY)
    await reconcile(kube_with(parent), kind, KEY)
    assert planned.seen == [None, counts]


async def test_nothing_is_kept_of_an_object_that_is_gone() -> None:
    planned = Planned([(Plan(QUEUED), 3), (Plan(TRAINING), None)])
    kind = planned.kind()
    await reconcile(kube_with(), kind, KEY)
    await reconcile(FakeKube(), kind, KEY)
    await reconcile(kube_with(), kind, KEY)
    assert planned.seen == [None, None]


async def test_another_process_knows_nothing_of_it() -> None:
    """As after a crash between what a plan creates and its status."""
    await reconcile(kube_with(), Planned([(Plan(QUEUED), 3)]).kind(), KEY)
    successor = Planned([(Plan(TRAINING), None)])
    await reconcile(kube_with(), successor.kind(), KEY)
    assert successor.seen == [None]
