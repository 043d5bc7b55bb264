"""The phase Building: one try runs at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.core.plan import earliest
from finetune_operator.dataset.allowed_class import allowed_class
from finetune_operator.dataset.current_job import next_try, objects_of, try_result, try_to_watch
from finetune_operator.dataset.objects import output_uri, run_key
from finetune_operator.dataset.observed import DatasetDecision, DatasetPlan, ObservedDataset
from finetune_operator.pods.job_outcome import first_disruption, next_sidecar_check
from finetune_operator.pods.leftovers import jobs_to_delete
from finetune_operator.pods.retried_job import Running, retry_readiness, with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS, queued_message


def record_disruption(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Record why the infrastructure is ending the Pod, before the Pod is gone."""
    job = try_to_watch(observed)
    if job is None or plan.status.disruption is not None:
        return plan
    seen = first_disruption(observed.pods_of(job))
    return replace(plan, status=plan.status.model_copy(update={"disruption": seen}))


def watch_try(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Wait for the try that has no result yet, and report its state."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, job, now)
    if job is None or not isinstance(result, Running):
        return None
    readiness = retry_readiness(Reason.BUILDING, status.failure, None, is_bounded=True)
    readiness = replace(readiness, message=readiness.message + result.message)
    if job.suspended:
        readiness = progressing(Reason.QUEUED, queued_message(job))
    elif result.start is not None:
        readiness = with_previous_failure(result.start.readiness, status.failure, is_bounded=True)
    others = [other for other in observed.jobs if other.name != job.name]
    return DatasetDecision(
        status,
        readiness,
        delete=jobs_to_delete(observed.owner.namespace, others, observed.pods),
        requeue_at=earliest(
            [now + timedelta(seconds=START_CHECK_SECONDS), next_sidecar_check(observed.pods_of(job), now)]
        ),
        meanwhile=Reason.BUILDING,
    )


def start_try(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision:
    """Create the Job of the next try, also in place of an outdated one."""
    owner, class_ = observed.owner, allowed_class(observed)
    number, name = next_try(observed, status)
    update = {
        "try_number": number,
        "job_name": name,
        "retry_time": None,
        "disruption": None,
        "storage_uri": output_uri(owner, run_key(status), class_),
        "class_name": class_.name,
    }
    status = status.model_copy(update=update)
    others = [job for job in observed.jobs if job.name != name]
    return DatasetDecision(
        status,
        retry_readiness(Reason.BUILDING, status.failure, None, is_bounded=True),
        create=objects_of(observed, status, class_),
        delete=jobs_to_delete(owner.namespace, others, observed.pods),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=Reason.BUILDING,
    )
