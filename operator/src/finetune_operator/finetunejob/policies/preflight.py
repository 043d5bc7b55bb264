"""status.preflight and the phase Validating: a CPU Pod checks the dataset, the model and the storage.

It is retried without a limit: it costs no accelerator, and most failures can be fixed without another spec.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import resolve_for
from finetune_api.finetunejob import FineTuneJobStatus, PreflightStatus
from finetune_api.pod_contracts.outcome import PreflightReport
from finetune_operator.core.backoff import waits
from finetune_operator.core.conditions import Readiness, failure_message, known_reason, progressing
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.allowed_class import allowed_class, class_or_refusal, with_run_id_hint
from finetune_operator.finetunejob.attempt_state import JobDecision, JobPlan, preflight_succeeded
from finetune_operator.finetunejob.ends import run_failed
from finetune_operator.finetunejob.objects import model_source, next_job, output_uri, preflight_objects, teacher_source
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import run_key
from finetune_operator.finetunejob.stale_jobs import stale_and_old_jobs, stale_jobs
from finetune_operator.finetunejob.storage_folders import access_of, endpoint_of, with_folder
from finetune_operator.kube.resources import Object
from finetune_operator.pods.job_outcome import first_disruption
from finetune_operator.pods.leftovers import is_outdated
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import Disrupted, Failed, RetriedJob, Running, Succeeded, retry_readiness
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def _is_preflight_report(report: object) -> bool:
    return isinstance(report, PreflightReport) and report.dataset.training is not None


PREFLIGHT = RetriedJob(accepts=_is_preflight_report, retries_every_failure=True)


def record_preflight(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record what the preflight Pod reported, or that it is gone, or outdated and has to be replaced."""
    found, job = _current(observed, plan.status)
    if found is None or (job is None and found.succeeded is not None):
        return plan
    if job is None:
        # It was deleted: by a person, with its node, or by the garbage collector before its end was seen.
        return _with_preflight(plan, found, succeeded=False, retry_time=PREFLIGHT.next_time(found.try_number, now))
    number = found.try_number
    if is_outdated(job, observed.pods_of(job.name), lambda: _rendered(observed, plan.status, number)):
        return _with_preflight(plan, found, retry_time=whole_seconds(now))
    if found.disruption is None:
        found = found.model_copy(update={"disruption": first_disruption(observed.pods_of(job.name))})
    result = _result(observed, found, job, now)
    if isinstance(result, Running):
        return _with_preflight(plan, found)
    if isinstance(result, Disrupted):
        again = PREFLIGHT.next_time(found.try_number, now)
        return _with_preflight(plan, found, succeeded=False, retry_time=again, disruption=result.disruption)
    if isinstance(result, Failed):
        again_at = None if result.final else PREFLIGHT.next_time(found.try_number, now)
        dataset = result.report.dataset if result.report is not None else None
        plan = _with_preflight(plan, found, succeeded=False, retry_time=again_at)
        update = {"dataset": dataset or plan.status.dataset, "failure": result.diagnosis}
        return replace(plan, status=plan.status.model_copy(update=update))
    return _with_report(observed, _with_preflight(plan, found, succeeded=True), result)


def fail_at_preflight(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run if its preflight failed and another one would fail too."""
    found, job = _current(observed, status)
    result = _result(observed, found, job, now) if found is not None and job is not None else None
    if job is None or not isinstance(result, Failed):
        return None
    reason = known_reason(result.diagnosis.reason)
    return run_failed(status, reason, f"{failure_message(result.diagnosis)} {_change(reason)}".strip(), now)


def watch_preflight(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Wait for the preflight that has no result yet, and report its state."""
    found, job = _current(observed, status)
    if found is None or job is None:
        return None
    result, readiness = _result(observed, found, job, now), preflight_readiness(status)
    if isinstance(result, Running) and job.deleting:
        message = f"{job.resource.kind} {job.name} of preflight is being deleted. Once it is gone, another one starts."
        readiness = replace(readiness, message=message)
    elif isinstance(result, Running):
        readiness = replace(readiness, message=readiness.message + result.message)
        readiness = readiness if result.start is None else result.start.readiness
    return JobDecision(
        status,
        readiness,
        delete=stale_jobs(observed, keep=job.name),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
    )


def wait_for_preflight_time(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime
) -> JobDecision | None:
    """Start no preflight before status.preflight.retryTime."""
    found = None if preflight_succeeded(status) else status.preflight
    if found is None or not waits(found.retry_time, now):
        return None
    return JobDecision(status, preflight_readiness(status), delete=stale_jobs(observed), requeue_at=found.retry_time)


def start_preflight(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Create the Pod of the next preflight."""
    if preflight_succeeded(status):
        return None
    owner, class_ = observed.owner, allowed_class(observed)
    number, name = next_job(owner, status)
    storage_uri = output_uri(owner, run_key(status), class_)
    update = {
        "class_name": class_.name,
        "storage_uri": storage_uri,
        "storage_endpoint": endpoint_of(class_),
        "storage_access": access_of(class_),
        "preflight": PreflightStatus(try_number=number, job_name=name),
    }
    begun, status = status, status.model_copy(update=update)
    status = with_folder(status, storage_uri, class_.name, endpoint_of(class_))
    return JobDecision(
        status,
        preflight_readiness(status),
        if_refused=begun,
        create=tuple(_objects(observed, status, class_, number)),
        delete=stale_and_old_jobs(observed, keep=name),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
    )


def _rendered(observed: ObservedFineTuneJob, status: FineTuneJobStatus, number: int) -> list[Object] | None:
    """The preflight's objects as they would be built now; None while the class does not allow them."""
    class_ = class_or_refusal(observed)
    return None if isinstance(class_, Readiness) else _objects(observed, status, class_, number)


def _objects(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, class_: ResolvedClass, number: int
) -> list[Object]:
    """The preflight's objects, built from the current class and spec."""
    model = model_source(observed.spec, status)
    classifier = observed.classifier
    assert not isinstance(classifier, Readiness), "class_or_refusal says so otherwise"
    run, teacher = run_key(status), teacher_source(status)
    revisions = status.dataset_revisions
    return preflight_objects(observed.owner, observed.spec, class_, model, number, run, classifier, teacher, revisions)


def _current(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> tuple[PreflightStatus | None, JobView | None]:
    """The preflight that has no result yet, and its Pod, or its Job from an earlier release, if that exists."""
    found = status.preflight
    if found is None or found.retry_time is not None or preflight_succeeded(status):
        return None, None
    return found, observed.job(found.job_name)


def _result(
    observed: ObservedFineTuneJob, found: PreflightStatus, job: JobView, now: datetime
) -> Running | Succeeded | Disrupted | Failed:
    return PREFLIGHT.result(job, observed.pods_of(job.name), observed.warnings, now, seen=found.disruption)


def _with_preflight(plan: JobPlan, found: PreflightStatus, **update: object) -> JobPlan:
    preflight = found.model_copy(update=update)
    return replace(plan, status=plan.status.model_copy(update={"preflight": preflight}))


def _with_report(observed: ObservedFineTuneJob, plan: JobPlan, result: Succeeded) -> JobPlan:
    """The plan with the report of a preflight that succeeded, and the resolved hyperparameters."""
    report = result.report
    assert isinstance(report, PreflightReport), "RetriedJob asks for one"
    update = {
        "dataset": report.dataset,
        "model": report.model,
        "memory": report.memory,
        "calibration": report.calibration,
        "resolved": resolve_for(observed.spec, report),
        "failure": None,
    }
    return replace(plan, status=plan.status.model_copy(update=update))


def _change(reason: Reason) -> str:
    """What to change after a final failure."""
    if reason == Reason.DEADLINE_EXCEEDED:
        return "Another try would take as long. Use a smaller dataset, and change runId."
    return "Correct the spec and change runId." if reason == Reason.INVALID_SPEC else ""


def preflight_readiness(status: FineTuneJobStatus) -> Readiness:
    """The readiness of preflight while its Pod has no result."""
    found = status.preflight
    again = found.retry_time if found is not None else None
    if found is None or again is None or found.succeeded is not False or status.failure is not None:
        return with_run_id_hint(retry_readiness(Reason.VALIDATING, status.failure, again))
    message, seen = "The preflight Pod was disrupted.", found.disruption
    if seen is not None:
        message = f"Pod {seen.pod} was disrupted ({seen.reason}: {seen.message})."
    return progressing(Reason.VALIDATING, f"{message} Preflight starts again at {again:%H:%M:%S} UTC.")
