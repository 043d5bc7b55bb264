"""spec.retryLimit, status.retryTime, the phases Retrying and Failed: whether another try follows, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_operator.core.backoff import waits
from finetune_operator.core.conditions import Readiness, failed, failure_message, known_reason, progressing, sentence
from finetune_operator.core.plan import Decision, Plan
from finetune_operator.pods.leftovers import lost_job_message
from finetune_operator.pods.retried_job import Disrupted, Failed, retry_limit_message, waiting_to_retry
from finetune_operator.retried_run.current_try import current_job, result_of_try
from finetune_operator.retried_run.ends import fail_run
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status, retried_job


def record_failure(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, plan: Plan[Status], now: datetime
) -> Plan[Status]:
    """Count a failure of the newest try, whatever the spec says by now."""
    result = result_of_try(run, observed, plan.status, now)
    if not isinstance(result, Failed):
        return plan
    update = {"retries": plan.status.retries + 1, "failure": result.diagnosis}
    return replace(plan, status=plan.status.model_copy(update=update))


def fail_at_retry_limit(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """End the run if another try can't help, or if the limit is reached."""
    result = result_of_try(run, observed, status, now)
    if not isinstance(result, Failed):
        return None
    diagnosis, message = result.diagnosis, sentence(failure_message(result.diagnosis))
    if result.final:
        return fail_run(run, observed, status, failed(known_reason(diagnosis.reason), message), now)
    if retried_job(run.report, observed.spec).allows_another(status.retries):
        return None
    message = retry_limit_message(run.work, status.retries, observed.spec.retry_limit, diagnosis)
    return fail_run(run, observed, status, failed(Reason.RETRY_LIMIT_REACHED, message), now)


def retry_failed(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Retry, with exponential backoff, a try that failed."""
    if not isinstance(result_of_try(run, observed, status, now), Failed):
        return None
    again = retried_job(run.report, observed.spec).next_time(status.retries, now)
    status = status.model_copy(update={"retry_time": again})
    return Decision(status, _waiting(run, observed, status), requeue_at=again, meanwhile=Reason.RETRYING)


def retry_disrupted(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Retry, with exponential backoff, a try that the infrastructure ended: it never counts."""
    message = _disruption(run, observed, status, now)
    if message is None:
        return None
    disruptions = status.disruptions + 1
    again = retried_job(run.report, observed.spec).next_time(disruptions, now)
    status = status.model_copy(update={"disruptions": disruptions, "retry_time": again})
    readiness = progressing(Reason.RETRYING, f"{message} The next try starts at {again:%H:%M:%S} UTC.")
    return Decision(status, readiness, requeue_at=again)


def wait_for_retry_time(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Start no try before status.retryTime."""
    if not waits(status.retry_time, now):
        return None
    readiness = _waiting(run, observed, status)
    return Decision(status, readiness, requeue_at=status.retry_time, meanwhile=Reason.RETRYING)


def _waiting(run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status) -> Readiness:
    return waiting_to_retry(run.working, status.failure, status.retry_time, observed.status.conditions)


def _disruption(run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime) -> str | None:
    """What disrupted the newest try; None if nothing did."""
    if current_job(run, observed) is None and status.job_name is not None and status.retry_time is None:
        return lost_job_message(status.job_name, is_disowned=bool(observed.disowned))
    result = result_of_try(run, observed, status, now)
    return result.message if isinstance(result, Disrupted) else None
