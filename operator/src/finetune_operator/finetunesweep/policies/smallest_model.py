"""mode SmallestModel: its candidates are recorded before the first trial; larger ones end once a smaller one passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_operator.core.conditions import Readiness
from finetune_operator.finetunesweep.objects import cancelled
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan
from finetune_operator.finetunesweep.smallest_model.choice import SMALLER_PASSED, larger
from finetune_operator.finetunesweep.trials import ended, replaced


def record_models(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """What the class lists may change meanwhile: the trials are numbered by what it listed first."""
    models = observed.models
    if observed.spec.smallest_model is None or plan.status.models or models is None or isinstance(models, Readiness):
        return plan
    return replace(plan, status=plan.status.model_copy(update={"models": list(models)}))


def end_larger(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Cancel the trials of larger models, and their Evaluations; smaller ones that still run may pass, too."""
    if observed.spec.smallest_model is None:
        return plan
    accelerators = observed.accelerators if isinstance(observed.accelerators, int) else None
    alive = [(trial, observed.jobs.get(trial.fine_tune_job_name)) for trial in larger(plan.status)]
    over = [ended(trial, job, accelerators, "Cancelled", reason=SMALLER_PASSED) for trial, job in alive]
    merge = [
        cancelled(observed.owner, trial.fine_tune_job_name, job)
        for trial, job in alive
        if job is not None and job.may_be_changed and not job.is_cancelled
    ]
    return replace(plan, status=replaced(plan.status, *over), merge=(*plan.merge, *merge))
