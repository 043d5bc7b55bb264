"""status.startingModel: what the run starts from, a URI or the result of another job as it is when the run starts.

It is written into the status once and stays the same for all attempts of the run, whatever becomes of that job and of
the spec: a report is about what its run was asked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, StartingModel
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobDecision, JobPlan
from finetune_operator.finetunejob.stopping import stale_jobs
from finetune_operator.models.resolve import ResolvedModel


def wait_for_model(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing until the other job has a result."""
    reference, found = observed.spec.model.fine_tune_job_ref, observed.model
    if reference is None or status.starting_model is not None:
        return None
    if reference.name == observed.owner.name:
        found = stalled(
            Reason.INVALID_SPEC,
            "spec.model.fineTuneJobRef names this object itself, whose new run has no result yet. Name another "
            "FineTuneJob, or set model.uri to an earlier result (status.history), and change runId.",
        )
    return JobDecision(status, found, delete=stale_jobs(observed)) if isinstance(found, Readiness) else None


def record_starting_model(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Write down what the reference means, once."""
    if plan.status.starting_model is not None:
        return plan
    found = observed.model
    source = found.source if isinstance(found, ResolvedModel) else model_source(observed, plan.status)
    model = StartingModel(uri=source.uri, adapter_uri=source.adapter_uri, digest=source.digest)
    return replace(plan, status=plan.status.model_copy(update={"starting_model": model}))


def waits_for_model(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the run can't start yet, since another job has no result."""
    return status.starting_model is None and isinstance(observed.model, Readiness)


def model_source(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> ModelSource:
    """What the Pods of the run load."""
    found = status.starting_model
    if found is None:  # A run that an older version began.
        return ModelSource(uri=observed.spec.model.uri or "")
    return ModelSource(uri=found.uri, adapter_uri=found.adapter_uri, digest=found.digest)
