"""status.errors, status.errorCount: the invalid lines that the newest try failed for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.dataset import MOST_ERRORS
from finetune_api.finetunejob import DatasetFindings
from finetune_operator.dataset.observed import DatasetPlan, ObservedDataset
from finetune_operator.dataset.run import RUN
from finetune_operator.pods.retried_job import Failed
from finetune_operator.retried_run.current_try import result_of_try


def record_errors(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Record them once the try has failed; none, if it failed for another reason."""
    result = result_of_try(RUN, observed, plan.status, now)
    if not isinstance(result, Failed):
        return plan
    found = (None if result.report is None else result.report.dataset) or DatasetFindings()
    update = {"error_count": found.error_count, "errors": found.errors[:MOST_ERRORS]}
    return replace(plan, status=plan.status.model_copy(update=update))
