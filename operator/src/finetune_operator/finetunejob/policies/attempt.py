"""status.attempt, its progress and checkpoints, and the phases Queued and Training: one attempt runs at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus
from finetune_api.progress import carried
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.core.plan import earliest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    JobDecision,
    JobPlan,
    attempt_state,
    end_attempt,
    last_end,
    last_step,
    preflight_succeeded,
    running_attempt,
    with_checkpoints,
    with_state,
    without_remaining_time,
)
from finetune_operator.finetunejob.objects import Attempt, attempt_objects, next_job, output_uri, run_key
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.active_deadline import class_deadline_seconds
from finetune_operator.finetunejob.policies.class_limits import allowed_class, class_or_refusal
from finetune_operator.finetunejob.policies.earlier_pods import (
    lost_pods_message,
    stale_and_old_jobs,
    stale_jobs,
)
from finetune_operator.finetunejob.policies.run import model_source
from finetune_operator.finetunejob.storage_folders import access_of, at_its_endpoint, endpoint_of, with_folder
from finetune_operator.kube.resources import Object
from finetune_operator.pods.disruption import first_disruption
from finetune_operator.pods.job_completion import next_sidecar_check, sidecar_message
from finetune_operator.pods.leftovers import is_outdated
from finetune_operator.pods.observed import JobView, has_started, is_lost, lost_time
from finetune_operator.pods.start_diagnosis import (
    START_CHECK_SECONDS,
    diagnose_start,
    early_message,
    queued_message,
    waits_in,
)


def record_progress(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record the newest report; without one (the operator has just started) the status keeps the last one.

    Pods that are being stopped still save and report after the end of their attempt has been recorded.
    """
    status = plan.status
    attempt = status.attempt
    if attempt is None or status.phase == "Succeeded":  # The final report has been recorded.
        return plan
    if attempt.disruption is None and running_attempt(status) is not None:
        seen = first_disruption(observed.pods_of(attempt.job_name))
        status = status.model_copy(update={"attempt": attempt.model_copy(update={"disruption": seen})})
    if observed.progress is not None:
        status = status.model_copy(update={"progress": carried(observed.progress, status.progress)})
    if status.phase in FINISHED or running_attempt(status) is None:
        status = without_remaining_time(status)
    if (report := observed.checkpoint_report) is not None:
        status = with_checkpoints(status, report.checkpoints, report.corrupt, report.checkpoint_seconds)
    return replace(plan, status=_with_end_of_pods(observed, status, attempt, now))


def wake_at_newer_report(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Requeue when the status may show the newest report: there may be no further report or event."""
    return replace(plan, requeue_at=earliest([plan.requeue_at, observed.newer_report_time]))


def record_start(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record that the attempt's Pods are running, or that it is outdated and has to be replaced before they start."""
    status = plan.status
    attempt, job = _current(observed, status)
    if attempt is None or job is None:
        return plan
    pods, number = observed.pods_of(job.name), attempt.number
    is_running = attempt_state(status) == "Running"
    if not is_running and is_outdated(job, pods, lambda: _rendered(observed, status, number)):
        message = "The FineTuneClass, or something else that its Job is built from, changed before it started."
        return replace(plan, status=end_attempt(status, attempt, "Replaced", now, reason="Changed", message=message))
    starts = [pod.started_time for pod in pods if pod.started_time is not None]
    if attempt.pods_start_time is None and starts:
        attempt = attempt.model_copy(update={"pods_start_time": whole_seconds(min(starts))})
    is_running = is_running or (not job.deleting and has_started(job, pods))
    if attempt.job_uid is None and (starts or is_running):  # No Pod reports before, and a status write costs as much.
        attempt = attempt.model_copy(update={"job_uid": job.uid})
    state = with_state(status, attempt, "Running" if is_running and not job.suspended else "Pending")
    return replace(plan, status=state)


def watch_attempt(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Wait for the attempt that is pending or running, and report its state."""
    attempt, job = _current(observed, status)
    return None if attempt is None or job is None else _wait_for_attempt(observed, status, attempt, job, now)


def start_attempt(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision:
    """Create the objects of the next attempt."""
    owner, class_, before = observed.owner, allowed_class(observed), status.attempt
    number, name = next_job(owner, status)
    storage_uri = status.storage_uri or output_uri(owner, run_key(status), class_)
    endpoint = endpoint_of(class_) if status.storage_endpoint is None else status.storage_endpoint
    access = access_of(class_) if endpoint == endpoint_of(class_) else status.storage_access
    storage = {"storage_uri": storage_uri, "storage_endpoint": endpoint, "storage_access": access}
    status = status.model_copy(update=storage)
    status = with_folder(status, storage_uri, class_.name, endpoint)
    objects = _objects(observed, status, class_, number)
    started = AttemptStatus(
        number=number,
        state="Pending",
        job_name=name,
        class_generation=class_.generation,
        retries=before.retries if before else 0,
        disruptions=before.disruptions if before else 0,
        start_time=whole_seconds(now),
        class_deadline_seconds=class_deadline_seconds(observed, status),
        reports_to=observed.progress_endpoint.digest if observed.progress_endpoint else None,
    )
    return JobDecision(
        status.model_copy(update={"attempt": started, "class_name": class_.name}),
        progressing(Reason.QUEUED, _queued_message(class_.spec.scheduling.queue_name)),
        create=tuple(objects),
        delete=stale_and_old_jobs(observed, keep=name),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
    )


def _current(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> tuple[AttemptStatus | None, JobView | None]:
    """The attempt that is pending or running, and its Job if it exists."""
    attempt = running_attempt(status)
    if attempt is None or not preflight_succeeded(status):
        return None, None
    return attempt, observed.job(attempt.job_name)


def _rendered(observed: ObservedFineTuneJob, status: FineTuneJobStatus, number: int) -> list[Object] | None:
    """The attempt's objects as they would be built now; None while the class does not allow them."""
    class_ = class_or_refusal(observed)
    return None if isinstance(class_, Readiness) else _objects(observed, status, class_, number)


def _objects(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, class_: ResolvedClass, number: int
) -> list[Object]:
    """The objects of an attempt, built from the current class and spec."""
    assert status.resolved is not None
    run = run_key(status)
    attempt = Attempt(
        owner=observed.owner,
        spec=observed.spec,
        class_=at_its_endpoint(class_, status),
        model=model_source(observed, status),
        hyperparameters=status.resolved,
        number=number,
        run=run,
        # A run keeps its folder once it has started, even if the class's bucket or prefix has changed.
        folder=status.storage_uri or output_uri(observed.owner, run, class_),
        endpoint=observed.progress_endpoint,
        checkpoint_seconds=status.checkpoint_seconds,
        class_deadline_seconds=class_deadline_seconds(observed, status),
    )
    return attempt_objects(attempt)


def _wait_for_attempt(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> JobDecision:
    """Report the state of an attempt whose Job exists."""
    pods, stale = observed.pods_of(job.name), stale_jobs(observed, keep=job.name)
    lost = lost_pods_message(observed, now, keep=job.name)
    if job.deleting:
        message = f"Somebody is deleting the Job of attempt {attempt.number}. The next attempt follows."
        return JobDecision(status, progressing(Reason.RETRYING, message), delete=stale)
    if job.suspended:
        message = queued_message(job) + lost
        return JobDecision(status, progressing(Reason.QUEUED, message), delete=stale)
    if attempt_state(status) == "Pending":
        start = diagnose_start(job, pods, observed.warnings, now)
        message = _queued_message(None) + early_message(job, pods, observed.warnings, now) + lost
        readiness = progressing(Reason.QUEUED, message) if start is None else start.readiness
        check = now + timedelta(seconds=START_CHECK_SECONDS)
        return JobDecision(status, readiness, delete=stale, requeue_at=check)
    message = f"Attempt {attempt.number} is training on {job.parallelism} node{'s' if job.parallelism > 1 else ''}."
    if job.ending or job.state != "Active":
        message = f"Attempt {attempt.number} has ended on one node. Waiting for its other Pods to end."
    message += _not_finite_message(status) + sidecar_message(pods) + _refused_reports_message(observed, attempt) + lost
    awaited = [pod for pod in pods if not (pod.is_terminal or is_lost(pod, now))]
    again = earliest([*(lost_time(pod) for pod in awaited), next_sidecar_check(pods, now)])
    return JobDecision(status, progressing(Reason.TRAINING, message), delete=stale, requeue_at=again)


def _not_finite_message(status: FineTuneJobStatus) -> str:
    """Which metrics became NaN or infinite, with a leading space; empty if none did."""
    names = (status.progress.not_finite if status.progress is not None else None) or []
    return f" {', '.join(names)} became NaN or infinite (status.progress.notFinite)." if names else ""


def _refused_reports_message(observed: ObservedFineTuneJob, attempt: AttemptStatus) -> str:
    """Why no reports of this attempt arrive, with a leading space; empty if they can or do arrive."""
    endpoint = observed.progress_endpoint
    if observed.progress is not None or observed.checkpoint_report is not None:
        return ""  # After a CA was added to the bundle its digest differs, but Pods with the old bundle still trust it.
    if attempt.reports_to is None or (endpoint is not None and endpoint.digest == attempt.reports_to):
        return ""
    return (
        " Progress is not updated until the attempt ends: the operator's address or CA has changed since its Pods were "
        "created, so it rejects their reports. Nothing is lost."
    )


def _queued_message(queue: str | None) -> str:
    """None: the Pods wait to start; a queue: the Job waits there for quota."""
    return "The Pods have been created and are waiting to start." if queue is None else waits_in(queue)


def _with_end_of_pods(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> FineTuneJobStatus:
    """Extend the record of a stopped attempt until its last Pod has ended, with the last step that they reported."""
    record = last_end(status)
    if record is None:
        return status
    pods = [pod for pod in observed.pods if pod.job_name == attempt.job_name and not is_lost(pod, now)]
    ends = [pod.ended_time if pod.is_terminal else now for pod in pods]
    update = {
        "end_time": whole_seconds(max([record.end_time, *(end for end in ends if end is not None)])),
        "step": record.step if (step := last_step(status, attempt)) is None else step,
    }
    records = [one.model_copy(update=update) if one is record else one for one in status.ended_attempts]
    return status.model_copy(update={"ended_attempts": records})
