"""How the running attempt ended: Succeeded with status.result, Failed, or Disrupted by the infrastructure.

A failure counts against retryLimit, a disruption never does: is_disruption (pods/disruption.py) tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.failure import Disruption, FailureStatus
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus, Progress, Result
from finetune_api.outcome import TrainReport
from finetune_api.progress import shown
from finetune_api.sources import is_below
from finetune_operator.core.conditions import Readiness, ready
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    JobDecision,
    JobPlan,
    attempt_state,
    end_attempt,
    running_attempt,
    with_checkpoints,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.earlier_pods import all_pods_ended
from finetune_operator.finetunejob.policies.run import model_source, run_id_refusal
from finetune_operator.pods.disruption import disrupted_pod_is_gone, disruption_message, failed_by_itself, is_disruption
from finetune_operator.pods.exit_diagnosis import failure, outcome, refused_report
from finetune_operator.pods.job_completion import job_finished, job_succeeded
from finetune_operator.pods.leftovers import stuck_job_message
from finetune_operator.pods.observed import JobView, PodView, is_lost


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


def with_result(
    status: FineTuneJobStatus, attempt: AttemptStatus, report: TrainReport, now: datetime
) -> FineTuneJobStatus:
    """The status with this attempt's final report."""
    status = end_attempt(status, attempt, "Succeeded", now)
    status = with_checkpoints(status, report.checkpoints, report.corrupt_checkpoints, report.checkpoint_seconds)
    return status.model_copy(
        update={
            "result": report.result,
            "completion_time": whole_seconds(now),
            "progress": _final_progress(status, report.result, now),
            "failure": None,
        }
    )


def succeeded_readiness(result: Result) -> Readiness:
    """Ready, with the URI of the result."""
    loss = f" Validation loss {result.eval_loss:.4f}." if result.eval_loss is not None else ""
    return ready(Reason.SUCCEEDED, f"The {result.adapter_type} result of step {result.step} is in {result.uri}.{loss}")


def _with_outcome(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> FineTuneJobStatus:
    job = observed.job(attempt.job_name)
    if job is None:
        if any(one.name == attempt.job_name for one in observed.disowned):
            return _disrupted(status, attempt, "JobDisowned", "Somebody removed the ownerReferences of its Job.", now)
        return _disrupted(status, attempt, "JobDeleted", "Somebody deleted its Job.", now)
    if job.deleting and job.foreign_finalizers:
        # Another controller's finalizer may stay for ever.
        return _disrupted(status, attempt, "JobDeleted", stuck_job_message(job), now)
    if job.deleting and any(is_lost(pod, now) for pod in observed.pods_of(job.name)):
        return _disrupted(status, attempt, "JobDeleted", "Somebody deleted its Job.", now)
    if job.deleting:
        return status
    if job.state != "Active":
        waited_for = any(not pod.is_terminal and not is_lost(pod, now) for pod in observed.pods_of(job.name))
        return status if waited_for else _with_reported_outcome(observed, status, attempt, job, now)
    return _outcome_of_active_job(observed, status, attempt, job, now)


def _outcome_of_active_job(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> FineTuneJobStatus:
    """End an attempt whose Job is still active but can't continue."""
    if job.suspended:
        if attempt.pods_start_time is None:
            return status
        if job.queue_name is None:
            message = "Somebody suspended its Job (spec.suspend of the Job), which is in no queue."
            return _disrupted(status, attempt, "JobSuspended", message, now)
        message = f"Queue {job.queue_name!r} reclaimed its quota, which suspended its Job."
        return _disrupted(status, attempt, "QuotaReclaimed", message, now)
    pods = observed.pods_of(job.name)
    if job.parallelism == 0:
        return _disrupted(status, attempt, "JobChanged", "Somebody set the parallelism of its Job to 0.", now)
    lost = next((pod for pod in pods if is_lost(pod, now)), None)
    if lost is not None and not lost.disrupted and failed_by_itself(pods):
        # The lost Pod was deleted because another Pod had failed by itself.
        return _with_reported_outcome(observed, status, attempt, job, now)
    if lost is not None:
        message = f"Pod {lost.name} does not terminate: its node does not respond."
        return _disrupted(status, attempt, "NodeLost", message, now)
    if job_finished(job, pods, now) and not all_pods_ended(observed, job):
        return _with_reported_outcome(observed, status, attempt, job, now)
    return status


def _with_reported_outcome(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> FineTuneJobStatus:
    """Decide the outcome of a Job that has ended and whose Pods have reported everything."""
    pods = observed.pods_of(job.name)
    report = outcome(pods)
    if isinstance(report, TrainReport) and job_succeeded(job, pods, now):
        if status.starting_model is None and run_id_refusal(observed, status) is not None:
            return status  # A run of an older operator: which model it was to tune is known only from its own spec.
        refusal = _result_refusal(report.result, status.storage_uri, model_source(observed, status).uri)
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


def _final_progress(status: FineTuneJobStatus, result: Result, now: datetime) -> Progress | None:
    """The final progress with the losses of the result, which is authoritative; reports may have been lost.

    A run with early stopping ended at its last reported step, any other at its total steps.
    """
    resolved, last = status.resolved, status.progress
    if resolved is None:
        return last
    total = resolved.total_steps
    step = total
    if resolved.early_stopping is not None and last is not None:
        step = min(total, max(last.step, result.step))
    loss = result.train_loss
    if loss is None and last is not None and last.step == step:
        loss = last.loss
    return Progress(
        step=step,
        total_steps=total,
        percent=100,
        epoch=round(resolved.epochs * step / max(total, 1), 4),
        loss=shown(loss),
        eval_loss=shown(result.eval_loss),
        eval_step=None if result.eval_loss is None else result.step,
        tokens_per_second=last.tokens_per_second if last is not None else None,
        estimated_remaining_seconds=0,
        last_updated_time=whole_seconds(now),
    ).over(last)
