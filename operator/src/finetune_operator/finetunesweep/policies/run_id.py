"""spec.runId: another one starts a new search; the trials of the previous one that still run are cancelled."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.finetunesweep.objects import cancelled
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan


def begin_run(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Forget the previous run, and start the new one."""
    before = plan.status
    if before.run_id == observed.spec.run_id:
        return plan
    status = FineTuneSweepStatus(
        conditions=before.conditions,
        run_id=observed.spec.run_id,
        run_number=before.run_number + 1,
        start_time=whole_seconds(now),
    )
    merge = [
        cancelled(observed.owner, name, job)
        for name, job in observed.jobs.items()
        if job.may_be_changed and not job.is_cancelled
    ]
    final = observed.holdout
    if final is not None and final.may_be_cancelled:
        merge.append(cancelled(observed.owner, "", final))
    return replace(plan, status=status.over(before), merge=(*plan.merge, *merge))
