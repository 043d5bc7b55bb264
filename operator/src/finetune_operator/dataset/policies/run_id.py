"""spec.runId: another one starts a new run."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.observed import DatasetPlan, ObservedDataset
from finetune_operator.dataset.pinned_revision import revision_to_read
from finetune_operator.dataset.run_identity import is_same_run, new_run


def begin_run(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Forget the previous run, and start the new one."""
    if is_same_run(observed):
        return plan
    start = whole_seconds(observed.server_times.no_earlier(now))
    prompts = revision_to_read(observed)
    assert not isinstance(prompts, Readiness), "wait_for_prompts decides before"
    begun = {"start_time": start, "prompts_revision": prompts}
    status = new_run(observed, plan.status, now).model_copy(update=begun)
    return replace(plan, status=status.over(plan.status))
