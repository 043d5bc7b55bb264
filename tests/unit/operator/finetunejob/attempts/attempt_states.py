"""States of an attempt on two nodes, for the tests of its life."""

from __future__ import annotations

from typing import Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, Progress
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.observed import PodView
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    NOW,
    TRAIN_1,
    TRAIN_2,
    Decided,
    ago,
    decided,
    earlier_conditions,
    job,
    job_spec,
    observed_job,
    pod,
    trained_status,
)

TWO_NODES = job_spec(parallelism={"nodes": 2})
TRAIN_2_OBJECTS = (f"Job/{TRAIN_2}",)
PROGRESS = Progress(
    step=30, total_steps=750, percent=4, loss=2.5, estimated_remaining_seconds=600, last_updated_time=ago(1)
)
TRAINING = earlier_conditions(Reason.TRAINING)
QUEUED_STATUS = trained_status(phase="Queued", conditions=earlier_conditions(Reason.QUEUED))
EXIT_1: dict[str, Any] = {"phase": "Failed", "exit_code": 1}


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def gang(state: Any, *pods: PodView, status: FineTuneJobStatus | None = None, **changes: Any) -> ObservedFineTuneJob:
    """The first attempt on two nodes."""
    before = status or trained_status(conditions=TRAINING)
    return observed_job(before, job(TRAIN_1, state, parallelism=2), pods=pods, spec=TWO_NODES, **changes)


def told_to_stop(index: int) -> PodView:
    return pod(TRAIN_1, index, "Failed", exit_code=143)


def evicted(index: int, **changes: Any) -> PodView:
    return pod(TRAIN_1, index, "Failed", exit_code=143, disrupted=True, **changes)
