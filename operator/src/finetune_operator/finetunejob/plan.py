"""What to do next for a FineTuneJob: a pure function of what was observed, one concern after the other."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.auto import resolve_hyperparameters
from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    AttemptStatus,
    FineTuneJobStatus,
    Phase,
    PreflightStatus,
)
from finetune_api.outcome import Failure, PreflightReport, TrainReport

from finetune_operator.classes import ResolvedClass, source_violation
from finetune_operator.finetunejob.objects import (
    attempt_objects,
    output_uri,
    preflight_job_name,
    preflight_objects,
    train_job_name,
)
from finetune_operator.finetunejob.observe import ObservedFineTuneJob
from finetune_operator.kube import JOBS
from finetune_operator.plan import Child, Plan, earliest, planned, unchanged
from finetune_operator.pod_diagnosis import JobView, blockage, failure, is_disruption, outcome
from finetune_operator.retry import retry_delay_seconds
from finetune_operator.status import Standing, progressing, ready, stalled

FINISHED: frozenset[Phase] = frozenset({"Succeeded", "Failed"})
BLOCKAGE_CHECK_SECONDS = 15


def plan(observed: ObservedFineTuneJob, now: datetime) -> Plan[FineTuneJobStatus]:
    """The writes that bring the job one step further."""
    spec, status = observed.spec, observed.status
    if status.run_id != spec.run_id:
        status = FineTuneJobStatus(conditions=status.conditions, run_id=spec.run_id, start_time=whole_seconds(now))
    elif status.phase in FINISHED:
        return _after_the_end(observed, now)
    platform = observed.platform
    if isinstance(platform, Standing):
        return planned(observed, status, status.phase or "Validating", platform, now)
    status = status.model_copy(
        update={"class_name": platform.name, "storage_uri": output_uri(observed.owner, spec, platform)}
    )
    refused = _policy_violation(observed, platform)
    if refused is not None:
        return planned(observed, status, status.phase or "Validating", refused, now, delete=_active(observed))
    if spec.suspend:
        return planned(observed, status, "Suspended", progressing(Reason.SUSPENDED), now, delete=_active(observed))
    deadline = _deadline(observed, status, platform)
    if deadline is not None and now >= deadline:
        message = (
            f"The run did not end within activeDeadlineSeconds. Its checkpoints are kept in {status.storage_uri}. "
            "Raise activeDeadlineSeconds and change runId to run again."
        )
        return _failed(observed, status, stalled(Reason.DEADLINE_EXCEEDED, message), now)
    if status.preflight is None or not status.preflight.succeeded:
        step = _preflight(observed, status, platform, now)
    else:
        step = _train(observed, status, platform, now)
    return _with_deadline(step, deadline)


def _preflight(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass, now: datetime
) -> Plan[FineTuneJobStatus]:
    """Read dataset, model and storage on a CPU Pod; try again, ever more slowly, until they are good."""
    owner, spec = observed.owner, observed.spec
    found = status.preflight
    if found is None:
        found = PreflightStatus(try_number=1, job_name=preflight_job_name(owner, spec.run_id, 1))
    status = status.model_copy(update={"preflight": found})
    if found.retry_time is not None:
        if now < found.retry_time:
            return unchanged(observed, status, requeue_at=found.retry_time)
        number = found.try_number + 1
        found = PreflightStatus(try_number=number, job_name=preflight_job_name(owner, spec.run_id, number))
        status = status.model_copy(update={"preflight": found})
    job = observed.job(found.job_name)
    if job is None:
        # A retry keeps its diagnosis until the new try has an answer.
        standing = _stalled_before(observed) or progressing(Reason.VALIDATING)
        return planned(
            observed,
            status,
            "Validating",
            standing,
            now,
            apply=preflight_objects(owner, spec, platform, found.try_number),
            delete=_others(observed, found.job_name),
        )
    pods = observed.pods_of(job.name)
    if job.state == "Active":
        blocked = blockage(pods, now)
        if blocked is not None:
            standing = stalled(blocked.reason, blocked.message)
        else:
            standing = progressing(Reason.VALIDATING)
            if found.try_number > 1:
                standing = _stalled_before(observed) or standing
        check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
        return planned(observed, status, "Validating", standing, now, requeue_at=check)
    said = outcome(pods)
    if isinstance(said, PreflightReport) and said.dataset.training is not None:
        training = said.dataset.training
        resolved = resolve_hyperparameters(
            spec.hyperparameters,
            adapter=spec.adapter.type,
            checkpoints=spec.checkpoints,
            examples=training.examples,
            max_tokens=training.max_tokens,
            context_length=said.model.context_length,
        )
        status = status.model_copy(
            update={
                "preflight": found.model_copy(update={"succeeded": True}),
                "dataset": said.dataset,
                "model": said.model,
                "resolved": resolved,
                "failure": None,
            }
        )
        return _train(observed, status, platform, now)
    diagnosis = failure(pods, job.message)
    if isinstance(said, Failure) and said.dataset is not None:
        status = status.model_copy(update={"dataset": said.dataset})
    retry_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(found.try_number))
    status = status.model_copy(
        update={
            "preflight": found.model_copy(update={"succeeded": False, "retry_time": retry_time}),
            "failure": diagnosis,
        }
    )
    message = f"{diagnosis.message} Checked again by itself; next at {retry_time:%H:%M:%S} UTC."
    standing = stalled(Reason(diagnosis.reason), message)
    return planned(observed, status, "Validating", standing, now, requeue_at=retry_time)


def _train(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass, now: datetime
) -> Plan[FineTuneJobStatus]:
    """Keep one attempt running until the result is there, training can't go on, or retryLimit is used up."""
    attempt = status.attempt
    if attempt is None or (attempt.next_time is not None and now >= attempt.next_time):
        return _start_attempt(observed, status, platform, now)
    if attempt.next_time is not None:
        return unchanged(observed, status, requeue_at=attempt.next_time)
    job = observed.job(attempt.job_name)
    if job is None:
        if observed.status.phase == "Suspended":
            return _start_attempt(observed, status, platform, now)
        return _start_attempt(observed, status, platform, now, number=attempt.number)
    if job.deleting:
        return unchanged(observed, status)
    pods = observed.pods_of(job.name)
    said = outcome(pods)
    if isinstance(said, TrainReport) and job.state == "Complete":
        return _succeeded(observed, status, said, now)
    if job.state == "Active":
        return _running(observed, status, job, now)
    disrupted = job.state == "Complete" or is_disruption(pods, observed.spec.parallelism.nodes)
    diagnosis = failure(pods, job.message)
    if disrupted:
        attempt = attempt.model_copy(update={"disruptions": attempt.disruptions + 1, "next_time": whole_seconds(now)})
        status = status.model_copy(update={"attempt": attempt})
        standing = progressing(
            Reason.RETRYING,
            f"Attempt {attempt.number} was disrupted; the next one resumes from the newest checkpoint.",
        )
        return planned(observed, status, "Retrying", standing, now, requeue_at=now)
    attempt = attempt.model_copy(update={"retries": attempt.retries + 1})
    status = status.model_copy(update={"attempt": attempt, "failure": diagnosis})
    if isinstance(said, Failure) and not said.retryable:
        return _failed(observed, status, stalled(Reason(diagnosis.reason), diagnosis.message), now)
    if attempt.retries > observed.spec.retry_limit:
        message = (
            f"Training failed {attempt.retries} times, more than retryLimit {observed.spec.retry_limit}. "
            f"The last time: {diagnosis.reason}: {diagnosis.message}"
        )
        return _failed(observed, status, stalled(Reason.RETRY_LIMIT_REACHED, message), now)
    next_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(attempt.retries))
    status = status.model_copy(update={"attempt": attempt.model_copy(update={"next_time": next_time})})
    standing = progressing(
        Reason.RETRYING,
        f"Attempt {attempt.number} failed ({diagnosis.reason}: {diagnosis.message}) Retry {attempt.retries} of "
        f"{observed.spec.retry_limit} starts at {next_time:%H:%M:%S} UTC from the newest checkpoint.",
    )
    return planned(observed, status, "Retrying", standing, now, requeue_at=next_time)


def _start_attempt(
    observed: ObservedFineTuneJob,
    status: FineTuneJobStatus,
    platform: ResolvedClass,
    now: datetime,
    *,
    number: int | None = None,
) -> Plan[FineTuneJobStatus]:
    """Make an attempt's objects; `number` makes a vanished attempt again."""
    owner, spec = observed.owner, observed.spec
    assert status.resolved is not None
    before = status.attempt
    number = number or (before.number + 1 if before else 1)
    name = train_job_name(owner, spec.run_id, number)
    attempt = AttemptStatus(
        number=number,
        job_name=name,
        class_generation=platform.generation,
        retries=before.retries if before else 0,
        disruptions=before.disruptions if before else 0,
        start_time=whole_seconds(now),
    )
    return planned(
        observed,
        status.model_copy(update={"attempt": attempt}),
        "Queued",
        progressing(Reason.QUEUED),
        now,
        apply=attempt_objects(owner, spec, platform, status.resolved, number, observed.progress_endpoint),
        delete=_others(observed, name),
    )


def _running(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, job: JobView, now: datetime
) -> Plan[FineTuneJobStatus]:
    pods = observed.pods_of(job.name)
    if observed.progress is not None:
        status = status.model_copy(update={"progress": observed.progress})
    nodes = observed.spec.parallelism.nodes
    check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
    if sum(pod.phase in ("Running", "Succeeded") for pod in pods) < nodes:
        blocked = blockage(pods, now)
        standing = stalled(blocked.reason, blocked.message) if blocked else progressing(Reason.QUEUED)
        return planned(observed, status, "Queued", standing, now, requeue_at=check)
    number = status.attempt.number if status.attempt else 1
    standing = progressing(Reason.TRAINING, f"Attempt {number} trains on {nodes} node{'s' if nodes > 1 else ''}.")
    return planned(observed, status, "Training", standing, now)


def _succeeded(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, report: TrainReport, now: datetime
) -> Plan[FineTuneJobStatus]:
    result = report.result
    progress = observed.progress or status.progress
    if progress is not None:
        progress = progress.model_copy(
            update={"step": progress.total_steps, "percent": 100, "estimated_remaining_seconds": 0}
        )
    status = status.model_copy(
        update={
            "result": result,
            "checkpoints": report.checkpoints,
            "completion_time": whole_seconds(now),
            "progress": progress,
            "failure": None,
        }
    )
    loss = f" Validation loss {result.eval_loss:.4f}." if result.eval_loss is not None else ""
    standing = ready(
        Reason.SUCCEEDED, f"The {result.adapter_type} result of step {result.step} is in {result.uri}.{loss}"
    )
    return planned(observed, status, "Succeeded", standing, now)


def _failed(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, standing: Standing, now: datetime
) -> Plan[FineTuneJobStatus]:
    """The end of the run; only a new runId starts again."""
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return planned(observed, status, "Failed", standing, now, delete=_active(observed))


def _after_the_end(observed: ObservedFineTuneJob, now: datetime) -> Plan[FineTuneJobStatus]:
    """A finished run stays as it is; its Pods go when their time has come."""
    status, spec = observed.status, observed.spec
    ttl = spec.ttl_seconds_after_finished
    if ttl is None or status.completion_time is None or not observed.jobs:
        return unchanged(observed, status)
    due = status.completion_time + timedelta(seconds=ttl)
    if now < due:
        return unchanged(observed, status, requeue_at=due)
    return unchanged(observed, status, delete=_children(observed, observed.jobs))


def _policy_violation(observed: ObservedFineTuneJob, platform: ResolvedClass) -> Standing | None:
    spec, limits = observed.spec, platform.spec.limits
    if spec.parallelism.nodes > limits.nodes:
        return stalled(
            Reason.LIMIT_EXCEEDED,
            f"spec.parallelism.nodes is {spec.parallelism.nodes}; FineTuneClass {platform.name!r} allows "
            f"{limits.nodes}.",
        )
    asked = spec.active_deadline_seconds
    if limits.active_deadline_seconds is not None and asked is not None and asked > limits.active_deadline_seconds:
        return stalled(
            Reason.LIMIT_EXCEEDED,
            f"spec.activeDeadlineSeconds is {asked}; FineTuneClass {platform.name!r} allows "
            f"{limits.active_deadline_seconds}.",
        )
    validation = spec.dataset.validation
    datasets = [spec.dataset.training.uri, *([validation.uri] if validation and validation.uri else [])]
    return source_violation(platform.spec, models=[spec.model.uri], datasets=datasets)


def _deadline(observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass) -> datetime | None:
    seconds = observed.spec.active_deadline_seconds or platform.spec.limits.active_deadline_seconds
    if seconds is None or status.start_time is None:
        return None
    return status.start_time + timedelta(seconds=seconds)


def _with_deadline(step: Plan[FineTuneJobStatus], deadline: datetime | None) -> Plan[FineTuneJobStatus]:
    if deadline is None or step.status.phase in FINISHED:
        return step
    return replace(step, requeue_at=earliest([step.requeue_at, deadline]))


def _active(observed: ObservedFineTuneJob) -> tuple[Child, ...]:
    return _children(observed, tuple(job for job in observed.jobs if job.state == "Active" and not job.deleting))


def _others(observed: ObservedFineTuneJob, keep: str) -> tuple[Child, ...]:
    """Every Job of this parent but one: what an earlier run or attempt left behind must not run beside it."""
    return _children(observed, tuple(job for job in observed.jobs if job.name != keep and not job.deleting))


def _children(observed: ObservedFineTuneJob, jobs: tuple[JobView, ...]) -> tuple[Child, ...]:
    return tuple(Child(JOBS, observed.owner.namespace, job.name, job.uid) for job in jobs if not job.deleting)


def _stalled_before(observed: ObservedFineTuneJob) -> Standing | None:
    """The diagnosis that stands, so that a retry in progress does not flap it."""
    for condition in observed.status.conditions:
        if condition.type == "Stalled" and condition.status == "True" and observed.status.failure is not None:
            return stalled(Reason(condition.reason), condition.message)
    return None
