"""How an attempt ended, and what follows: the result, the end of the run, or the next attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, Disruption, FailureStatus, FineTuneJobStatus
from finetune_api.outcome import Failure, TrainReport
from finetune_operator.core.conditions import known_reason, stalled
from finetune_operator.core.report_validation import result_refusal
from finetune_operator.finetunejob.attempt_records import fruitless_disruptions, running_attempt, with_end
from finetune_operator.finetunejob.completion import failed, succeeded
from finetune_operator.finetunejob.concern import Step
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.starting_model import model_source
from finetune_operator.finetunejob.stopping import is_given_up, is_spent
from finetune_operator.pods.backoff import retry_delay_seconds
from finetune_operator.pods.exit_diagnosis import (
    disruption_words,
    failed_by_itself,
    failure,
    failure_words,
    is_disruption,
    outcome,
    refused_report,
    took_away,
)
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.sidecars import ended_well, has_answered
from finetune_operator.pods.start_diagnosis import blockage, image_pull_timed_out, image_pull_words

_OF_THE_SHAPE = frozenset({Reason.CUDA_OUT_OF_MEMORY, Reason.OUT_OF_MEMORY})


def verdict(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """Judge the attempt that runs, if it has ended or can't go on."""
    attempt = running_attempt(status)
    if attempt is None:
        return status
    job = observed.job(attempt.job_name)
    if job is None:
        if any(one.name == attempt.job_name for one in observed.disowned):
            return _disrupted(status, attempt, "JobDisowned", "Somebody took its Job's ownerReferences away.", now)
        return _disrupted(status, attempt, "JobDeleted", "Somebody deleted its Job.", now)
    if job.deleting:
        return status
    if job.state != "Active":
        waited_for = any(not pod.ended and not is_given_up(pod, now) for pod in observed.pods_of(job.name))
        return status if waited_for else _judged(observed, status, attempt, job, now)
    return _interrupted(observed, status, attempt, job, now)


def _interrupted(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> Step:
    """What ends an attempt whose Job would go on."""
    if job.suspended:
        if attempt.pods_start_time is None:
            return status
        what = f"Its Job was suspended again: the queue {job.queue_name or 'of the cluster'} took its quota back."
        return _disrupted(status, attempt, "QuotaReclaimed", what, now)
    pods = observed.pods_of(job.name)
    if job.parallelism == 0:
        return _disrupted(status, attempt, "JobChanged", "Somebody set the parallelism of its Job to 0.", now)
    lost = next((pod for pod in pods if is_given_up(pod, now)), None)
    if lost is not None and not lost.disrupted and failed_by_itself(pods):
        return _judged(observed, status, attempt, job, now)  # what was lost had been told to end because of that
    if lost is not None:
        what = f"Pod {lost.name} does not end: its node does not answer."
        return _disrupted(status, attempt, "NodeLost", what, now)
    if has_answered(job, pods, now) and not is_spent(observed, job):
        return _judged(observed, status, attempt, job, now)
    blocked = blockage(job, pods, observed.warnings, now)
    if blocked is not None and image_pull_timed_out(blocked, now):
        return failed(observed, status, stalled(blocked.reason, image_pull_words(blocked)), now)
    return status


def _judged(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, job: JobView, now: datetime
) -> Step:
    """The Job has ended, and all that its Pods have to say is there."""
    pods = observed.pods_of(job.name)
    said = outcome(pods)
    if isinstance(said, TrainReport) and ended_well(job, pods, now):
        refusal = result_refusal(said.result, status.storage_uri, model_source(observed, status).uri)
        if refusal is not None:
            return _failed_attempt(observed, status, attempt, refused_report(pods, refusal), False, now)
        return succeeded(observed, status, said, now)
    seen = attempt.disruption if took_away(attempt.disruption, pods) else None
    if seen is not None or is_disruption(pods, job.parallelism):
        return _disrupted(status, attempt, _disruption_reason(pods, seen), disruption_words(pods, seen), now)
    diagnosis = failure(pods, job.message)
    heals = said.retryable if isinstance(said, Failure) else True
    return _failed_attempt(observed, status, attempt, diagnosis, heals, now)


def _failed_attempt(
    observed: ObservedFineTuneJob,
    status: FineTuneJobStatus,
    attempt: AttemptStatus,
    diagnosis: FailureStatus,
    heals: bool,
    now: datetime,
) -> Step:
    """A failure of training: it counts, and it ends the run where another attempt can't help."""
    if diagnosis.reason in _OF_THE_SHAPE:
        # Fragmentation or a neighbour may be to blame once; at the same shape twice it is the shape.
        heals = all(ended.reason != diagnosis.reason for ended in status.ended_attempts)
    attempt = attempt.model_copy(update={"retries": attempt.retries + 1})
    status = with_end(status, attempt, "Failed", now, reason=diagnosis.reason, message=diagnosis.message)
    status = status.model_copy(update={"failure": diagnosis})
    if not heals:
        return failed(observed, status, stalled(known_reason(diagnosis.reason), failure_words(diagnosis)), now)
    if attempt.retries > observed.spec.retry_limit:
        message = (
            f"Training failed {attempt.retries} times, more than retryLimit {observed.spec.retry_limit}. "
            f"The last time: {diagnosis.reason}: {failure_words(diagnosis)}"
        )
        return failed(observed, status, stalled(Reason.RETRY_LIMIT_REACHED, message), now)
    next_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(attempt.retries))
    return status.model_copy(update={"attempt": attempt.model_copy(update={"next_time": next_time})})


def _disrupted(
    status: FineTuneJobStatus, attempt: AttemptStatus, reason: str, message: str, now: datetime
) -> FineTuneJobStatus:
    """The infrastructure ended the attempt: it never counts, and the next one follows at once if this one got on.

    Attempts that don't start ever further apart: a node that evicts each of them would be asked in a tight loop.
    """
    status = with_end(status, attempt, "Disrupted", now, reason=reason, message=message)
    apart = timedelta(seconds=retry_delay_seconds(fruitless_disruptions(status.ended_attempts)))
    now = whole_seconds(now)
    # A start in the future (a clock that was wrong) keeps nobody waiting.
    next_time = min(max(now + timedelta(seconds=1), attempt.start_time + apart), now + apart)
    ended = {"disruptions": attempt.disruptions + 1, "disrupted": True, "next_time": next_time}
    return status.model_copy(update={"attempt": attempt.model_copy(update=ended)})


def _disruption_reason(pods: Sequence[PodView], seen: Disruption | None) -> str:
    """Kubernetes' own reason (PreemptionByScheduler, EvictionByEvictionAPI, ...), where it gave one."""
    named = [pod.disruption.partition(":")[0].strip() for pod in pods if pod.disruption]
    if seen is not None:
        named.append(seen.reason)
    return next((name for name in named if name), "PodTerminated")
