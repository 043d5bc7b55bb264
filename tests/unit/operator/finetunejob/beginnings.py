"""FineTuneJobs before their first attempt, and what is planned for them."""

from __future__ import annotations

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    NOW,
    PREFLIGHT_1,
    Decided,
    decided,
)

NEW = FineTuneJobStatus()
PREFLIGHT_OBJECTS = (f"Pod/{PREFLIGHT_1}",)


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result
