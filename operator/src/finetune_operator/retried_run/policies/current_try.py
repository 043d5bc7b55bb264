"""The phase of work, Building or Evaluating: one try runs at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import Readiness, progressing, sentence
from finetune_operator.core.plan import Decision, Plan, earliest
from finetune_operator.pods.job_outcome import first_disruption, next_sidecar_check
from finetune_operator.pods.retried_job import Running, retry_readiness, with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS, queued_message
from finetune_operator.retried_run.current_try import next_try, tries_to_delete, try_to_watch
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def record_disruption(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, plan: Plan[Status], now: datetime
) -> Plan[Status]:
    """Record why the infrastructure is ending the Pod, before the Pod is gone."""
    job = try_to_watch(run, observed, plan.status)
    if job is None or plan.status.disruption is not None:
        return plan
    seen = first_disruption(observed.pods_of(job))
    return replace(plan, status=plan.status.model_copy(update={"disruption": seen}))


def watch_try(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Wait for the try that has no result yet, and report its state."""
    job = try_to_watch(run, observed, status)
    result = None if job is None else run.try_result(observed, job, now)
    if job is None or not isinstance(result, Running):
        return None
    readiness = retry_readiness(run.working, status.failure, None, is_bounded=True)
    readiness = replace(readiness, message=readiness.message + result.message)
    if job.suspended:
        readiness = progressing(Reason.QUEUED, queued_message(job))
    elif result.start is not None:
        readiness = with_previous_failure(result.start.readiness, status.failure, is_bounded=True)
    missing = run.missing(observed)
    if missing is not None:
        message = f"{sentence(readiness.message)} {sentence(missing.message)} The running try continues."
        readiness = replace(readiness, message=message)
    return Decision(
        status,
        readiness,
        delete=tries_to_delete(run, observed, [other for other in observed.jobs if other.name != job.name]),
        requeue_at=earliest(
            [now + timedelta(seconds=START_CHECK_SECONDS), next_sidecar_check(observed.pods_of(job), now)]
        ),
        meanwhile=run.working,
    )


def start_try(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status]:
    """Create the objects of the next try, in place of an outdated one and of those that have ended."""
    class_ = run.class_or_refusal(observed)
    assert not isinstance(class_, Readiness), "wait_for_class decides before"
    number, name = next_try(run, observed, status)
    update = {
        "try_number": number,
        "job_name": name,
        "retry_time": None,
        "disruption": None,
        "storage_uri": run.storage_uri(observed, status, class_),
        "class_name": class_.name,
    }
    status = status.model_copy(update=update)
    objects = run.objects(observed, status)
    assert objects is not None, "the policies that wait decide before"
    return Decision(
        status,
        retry_readiness(run.working, status.failure, None, is_bounded=True),
        create=objects,
        delete=tries_to_delete(run, observed, [job for job in observed.jobs if job.name != name]),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=run.working,
    )
