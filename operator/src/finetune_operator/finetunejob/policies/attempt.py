"""status.attempt, from its start to its outcome; the phases Queued, Training and Succeeded. One attempt runs at a time.

It ends as Succeeded with status.result, as Failed, or as Disrupted by the infrastructure. A failure counts against
retryLimit, a disruption never does: is_disruption (pods/job_outcome.py) tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus, Result
from finetune_api.lifecycle import Disruption, FailureStatus
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_api.pod_contracts.progress import hacking_signs
from finetune_api.sources import is_below
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.core.plan import earliest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.allowed_class import allowed_class, class_deadline_seconds, class_or_refusal
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    JobDecision,
    JobPlan,
    attempt_state,
    end_attempt,
    preflight_succeeded,
    running_attempt,
    with_state,
)
from finetune_operator.finetunejob.ends import succeeded_readiness, with_result
from finetune_operator.finetunejob.objects import (
    Attempt,
    attempt_objects,
    model_source,
    next_job,
    output_uri,
    teacher_source,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import run_id_refusal, run_key
from finetune_operator.finetunejob.stale_jobs import (
    lost_pods_message,
    stale_and_old_jobs,
    stale_jobs,
)
from finetune_operator.finetunejob.storage_folders import access_of, at_its_endpoint, endpoint_of, with_folder
from finetune_operator.kube.resources import Object
from finetune_operator.pods.job_outcome import (
    disrupted_pod_is_gone,
    disruption_message,
    failed_by_itself,
    failure,
    is_disruption,
    job_finished,
    job_succeeded,
    next_sidecar_check,
    outcome,
    refused_report,
    sidecar_message,
)
from finetune_operator.pods.leftovers import all_pods_ended, is_outdated, stuck_job_message
from finetune_operator.pods.observed import JobView, PodView, has_started, is_lost, lost_time
from finetune_operator.pods.start_diagnosis import (
    START_CHECK_SECONDS,
    diagnose_start,
    early_message,
    queued_message,
    waits_in,
)

QUEUED_SECONDS = 3.0
"""Pods that start within this time of the first attempt's start spare the write of the status Queued."""


def record_start(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record that the attempt's Pods are running, or that it is outdated and has to be replaced before they start."""
    status = plan.status
    attempt, job = _current(observed, status)
    if attempt is None or job is None:
        return plan
    pods, number = observed.pods_of(job.name), attempt.number
    is_running = attempt_state(status) == "Running"
    if not is_running and is_outdated(job, pods, lambda: _rendered(observed, status, number)):
        message = "The FineTuneClass or another input of the Job changed before it started."
        return replace(plan, status=end_attempt(status, attempt, "Replaced", now, reason="Changed", message=message))
    starts = [pod.started_time for pod in pods if pod.started_time is not None]
    if attempt.pods_start_time is None and starts:
        # It is by the node's clock, which may be wrong.
        started = min(now, max(job.created, min(starts)))
        attempt = attempt.model_copy(update={"pods_start_time": whole_seconds(started)})
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
    # Of a Job that a crash left behind the Pods have waited for a while.
    is_late = class_.spec.scheduling.queue_name is not None or observed.job(name) is not None
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
        status_due=None if is_late else _queued_due(status, started, now),
    )


def _queued_due(status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime) -> datetime | None:
    """Until when the status Queued may wait. After another attempt, a person reads in it why that one ended.

    A start in the future is of a clock that was set back, and may be far away.
    """
    if status.ended_attempts or attempt.start_time > now:
        return None
    return attempt.start_time + timedelta(seconds=QUEUED_SECONDS)


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
        model=model_source(observed.spec, status),
        hyperparameters=status.resolved,
        number=number,
        run=run,
        # A run keeps its folder once it has started, even if the class's bucket or prefix has changed.
        folder=status.storage_uri or output_uri(observed.owner, run, class_),
        endpoint=observed.progress_endpoint,
        checkpoint_seconds=status.checkpoint_seconds,
        class_deadline_seconds=class_deadline_seconds(observed, status),
        teacher=teacher_source(status),
        revisions=status.dataset_revisions,
    )
    return attempt_objects(attempt)


def _wait_for_attempt(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> JobDecision:
    """Report the state of an attempt whose Job exists."""
    pods, stale = observed.pods_of(job.name), stale_jobs(observed, keep=job.name)
    lost = lost_pods_message(observed, now, keep=job.name)
    if job.deleting:
        message = f"The Job of attempt {attempt.number} is being deleted. The next attempt starts once it is gone."
        return JobDecision(status, progressing(Reason.RETRYING, message), delete=stale)
    if job.suspended:
        message = queued_message(job) + lost
        return JobDecision(status, progressing(Reason.QUEUED, message), delete=stale)
    if attempt_state(status) == "Pending":
        start = diagnose_start(job, pods, observed.warnings, now)
        message = _queued_message(None) + early_message(job, pods, observed.warnings, now) + lost
        readiness = progressing(Reason.QUEUED, message) if start is None else start.readiness
        check, due = now + timedelta(seconds=START_CHECK_SECONDS), None
        if start is None:
            due = _queued_due(status, attempt, now)
        return JobDecision(status, readiness, delete=stale, requeue_at=check, status_due=due)
    message = f"Attempt {attempt.number} is training on {job.parallelism} node{'s' if job.parallelism > 1 else ''}."
    if job.ending or job.state != "Active":
        message = f"Attempt {attempt.number} has ended on one node. Waiting for its other Pods to end."
    message += _not_finite_message(status) + _hacking_message(status) + sidecar_message(pods)
    message += _refused_reports_message(observed, attempt) + lost
    awaited = [pod for pod in pods if not (pod.is_terminal or is_lost(pod, now))]
    again = earliest([*(lost_time(pod) for pod in awaited), next_sidecar_check(pods, now)])
    return JobDecision(status, progressing(Reason.TRAINING, message), delete=stale, requeue_at=again)


def _not_finite_message(status: FineTuneJobStatus) -> str:
    """Which metrics became NaN or infinite, with a leading space; empty if none did."""
    names = (status.progress.not_finite if status.progress is not None else None) or []
    return f" {', '.join(names)} became NaN or infinite (status.progress.notFinite)." if names else ""


def _hacking_message(status: FineTuneJobStatus) -> str:
    """Signs that the model games its graders, with a leading space; empty without any."""
    progress = status.progress
    found = [] if progress is None else hacking_signs(progress.reward_gap, progress.completion_growth)
    return "".join(f" {sign}" for sign in found)


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


def record_outcome(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record how the attempt ended, if it has ended or can't continue."""
    attempt = running_attempt(plan.status)
    return plan if attempt is None else replace(plan, status=_with_outcome(observed, plan.status, attempt, now))


def succeed(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run with its result, once an attempt has succeeded."""
    if status.phase in FINISHED or attempt_state(status) != "Succeeded" or status.result is None:
        return None
    # Once this is written, running Jobs are stale.
    return JobDecision(status, succeeded_readiness(status.result), requeue_at=now)


def _with_outcome(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> FineTuneJobStatus:
    job = observed.job(attempt.job_name)
    if (interruption := _interruption(observed, attempt, job, now)) is not None:
        return _disrupted(status, attempt, *interruption, now)
    if job is None or not _has_ended(observed, job, now):
        return status
    return _with_reported_outcome(observed, status, attempt, job, now)


def _interruption(
    observed: ObservedFineTuneJob, attempt: AttemptStatus, job: JobView | None, now: datetime
) -> tuple[str, str] | None:
    """What happened to the Job before its Pods could report an end, as reason and message; None if nothing did."""
    if job is None:
        if any(one.name == attempt.job_name for one in observed.disowned):
            return "JobDisowned", "The ownerReferences of its Job were removed."
        return "JobDeleted", "Its Job was deleted."
    pods = observed.pods_of(job.name)
    lost = next((pod for pod in pods if is_lost(pod, now)), None)
    if job.deleting:
        if job.foreign_finalizers:  # Another controller's finalizer may stay for ever.
            return "JobDeleted", stuck_job_message(job)
        return None if lost is None else ("JobDeleted", "Its Job was deleted.")
    if job.state != "Active":
        return None
    if job.suspended:
        if attempt.pods_start_time is None:
            return None
        if job.queue_name is None:
            return "JobSuspended", "Its Job was suspended (spec.suspend of the Job), and is in no queue."
        return "QuotaReclaimed", f"Queue {job.queue_name!r} reclaimed its quota, which suspended its Job."
    if job.parallelism == 0:
        return "JobChanged", "The parallelism of its Job was set to 0."
    # A lost Pod that was not disrupted may have been deleted because another Pod had failed by itself.
    if lost is not None and (lost.disrupted or not failed_by_itself(pods)):
        return "NodeLost", f"Pod {lost.name} does not terminate: its node does not respond."
    return None


def _has_ended(observed: ObservedFineTuneJob, job: JobView, now: datetime) -> bool:
    """Whether the Pods of an attempt without an interruption have reported all that they will."""
    pods = observed.pods_of(job.name)
    if job.deleting:
        return False
    if job.state != "Active":
        return all(pod.is_terminal or is_lost(pod, now) for pod in pods)
    if job.suspended:
        return False
    return any(is_lost(pod, now) for pod in pods) or (job_finished(job, pods, now) and not all_pods_ended(job, pods))


def _with_reported_outcome(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> FineTuneJobStatus:
    """Decide the outcome of a Job that has ended and whose Pods have reported everything."""
    pods = observed.pods_of(job.name)
    report = outcome(pods)
    if isinstance(report, TrainReport) and job_succeeded(job, pods, now):
        if status.starting_model is None and run_id_refusal(observed, status) is not None:
            return status  # A run of an older operator: which model it was to tune is known only from its own spec.
        refusal = _result_refusal(report.result, status.storage_uri, model_source(observed.spec, status).uri)
        if refusal is None:
            return with_result(status, attempt, report, now)
        return _failed(status, attempt, refused_report(pods, refusal), now)
    seen = attempt.disruption if disrupted_pod_is_gone(attempt.disruption, pods) else None
    if seen is not None or is_disruption(pods, job.parallelism):
        return _disrupted(status, attempt, _disruption_reason(pods, seen), disruption_message(pods, seen), now)
    return _failed(status, attempt, failure(pods, job.message), now)


def _result_refusal(result: Result, folder: str | None, base_model_uri: str) -> str | None:
    """Why a run's result is rejected; None if it is valid."""
    for name, uri in (("uri", result.uri), ("reportUri", result.report_uri)):
        if uri is not None and not is_below(uri, folder):
            return f"its result's {name} is {uri!r}, which is outside the run's folder {folder}"
    if result.base_model_uri != base_model_uri:
        return f"its result's baseModelUri is {result.base_model_uri!r}, but the run started from {base_model_uri!r}"
    return None


def _failed(
    status: FineTuneJobStatus, attempt: AttemptStatus, diagnosis: FailureStatus, now: datetime
) -> FineTuneJobStatus:
    """End the attempt as Failed, which counts against retryLimit."""
    attempt = attempt.model_copy(update={"retries": attempt.retries + 1})
    status = end_attempt(status, attempt, "Failed", now, reason=diagnosis.reason, message=diagnosis.message)
    return status.model_copy(update={"failure": diagnosis})


def _disrupted(
    status: FineTuneJobStatus, attempt: AttemptStatus, reason: str, message: str, now: datetime
) -> FineTuneJobStatus:
    """End the attempt as Disrupted by the infrastructure, which never counts against retryLimit."""
    attempt = attempt.model_copy(update={"disruptions": attempt.disruptions + 1})
    return end_attempt(status, attempt, "Disrupted", now, reason=reason, message=message)


def _disruption_reason(pods: Sequence[PodView], seen: Disruption | None) -> str:
    """Kubernetes' own reason (PreemptionByScheduler, EvictionByEvictionAPI, ...) if there is one."""
    reasons = [pod.disruption.partition(":")[0].strip() for pod in pods if pod.disruption]
    if seen is not None:
        reasons.append(seen.reason)
    return next((reason for reason in reasons if reason), "PodTerminated")
