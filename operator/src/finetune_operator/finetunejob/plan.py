"""What to do next for a FineTuneJob: a pure function of what was observed, one concern after the other."""

from __future__ import annotations

from collections.abc import Iterable
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
from finetune_operator.plan import Child, Plan, earliest, job_and_config_map, planned, unchanged
from finetune_operator.pod_diagnosis import BLOCKAGE_CHECK_SECONDS, JobView, blockage, failure, is_disruption, outcome
from finetune_operator.retry import retry_delay_seconds
from finetune_operator.status import Standing, known_reason, progressing, ready, stalled

FINISHED: frozenset[Phase] = frozenset({"Succeeded", "Failed"})
ENDED_JOBS_KEPT = 3
ATTEMPTS_APART_SECONDS = 10
CHECKPOINTS_SHOWN = 100


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
    if status.preflight is None or not status.preflight.succeeded or status.resolved is None:
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
    if found is not None and found.retry_time is not None and now < found.retry_time:
        return planned(observed, status, "Validating", _validating(status), now, requeue_at=found.retry_time)
    if found is None or found.retry_time is not None or observed.job(found.job_name) is None:
        # The first try, the next one, or one in place of a try whose Job somebody took away.
        number = found.try_number + 1 if found else 1
        found = PreflightStatus(try_number=number, job_name=preflight_job_name(owner, spec.run_id, number))
        status = status.model_copy(update={"preflight": found})
    others = _superseded(observed, found.job_name)
    job = observed.job(found.job_name)
    if job is None:
        objects = preflight_objects(owner, spec, platform, found.try_number)
        return planned(observed, status, "Validating", _validating(status), now, create=objects, delete=others)
    pods = observed.pods_of(job.name)
    if job.state == "Active":
        blocked = blockage(pods, now)
        standing = stalled(blocked.reason, blocked.message) if blocked else _validating(status)
        check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
        return planned(observed, status, "Validating", standing, now, delete=others, requeue_at=check)
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
            processes=spec.parallelism.nodes * spec.parallelism.processes_per_node,
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
    return planned(observed, status, "Validating", _validating(status), now, requeue_at=retry_time)


def _validating(status: FineTuneJobStatus) -> Standing:
    """A try that follows a failed one keeps its diagnosis until it has an answer."""
    if status.failure is None or status.preflight is None:
        return progressing(Reason.VALIDATING)
    retry_time = status.preflight.retry_time
    when = f"next at {retry_time:%H:%M:%S} UTC" if retry_time else "now"
    message = f"{status.failure.message} Checked again by itself: {when}."
    return stalled(known_reason(status.failure.reason), message)


def _train(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass, now: datetime
) -> Plan[FineTuneJobStatus]:
    """Keep one attempt running until the result is there, training can't go on, or retryLimit is used up."""
    attempt = status.attempt
    if attempt is None or (attempt.next_time is not None and now >= attempt.next_time):
        return _start_attempt(observed, status, platform, now)
    if attempt.next_time is not None:
        return _retrying(observed, status, attempt, now)
    job = observed.job(attempt.job_name)
    if job is None:
        if observed.status.phase == "Suspended":
            return _start_attempt(observed, status, platform, now)
        return _disrupted(observed, status, attempt, now)
    if job.deleting:
        return unchanged(observed, status)
    if job.state == "Active":
        return _running(observed, status, job, now)
    pods = observed.pods_of(job.name)
    said = outcome(pods)
    if isinstance(said, TrainReport):
        return _succeeded(observed, status, said, now)
    if is_disruption(pods, observed.spec.parallelism.nodes):
        return _disrupted(observed, status, attempt, now)
    diagnosis = failure(pods, job.message)
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
    return _retrying(observed, status, attempt.model_copy(update={"next_time": next_time}), now)


def _disrupted(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> Plan[FineTuneJobStatus]:
    """The infrastructure ended the attempt: the next one follows at once, but never in a tight loop."""
    apart = attempt.start_time + timedelta(seconds=ATTEMPTS_APART_SECONDS)
    next_time = max(whole_seconds(now) + timedelta(seconds=1), apart)
    ended = {"disruptions": attempt.disruptions + 1, "disrupted": True, "next_time": next_time}
    return _retrying(observed, status, attempt.model_copy(update=ended), now)


def _retrying(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> Plan[FineTuneJobStatus]:
    """Between two attempts."""
    message = f"Attempt {attempt.number} was disrupted; the next one resumes from the newest checkpoint."
    if not attempt.disrupted and status.failure is not None and attempt.next_time is not None:
        message = (
            f"Attempt {attempt.number} failed ({status.failure.reason}: {status.failure.message}) Retry "
            f"{attempt.retries} of {observed.spec.retry_limit} starts at {attempt.next_time:%H:%M:%S} UTC from the "
            "newest checkpoint."
        )
    status = status.model_copy(update={"attempt": attempt})
    standing = progressing(Reason.RETRYING, message)
    return planned(observed, status, "Retrying", standing, now, requeue_at=attempt.next_time)


def _start_attempt(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass, now: datetime
) -> Plan[FineTuneJobStatus]:
    """Make the objects of the next attempt."""
    owner, spec = observed.owner, observed.spec
    assert status.resolved is not None
    before = status.attempt
    number = before.number + 1 if before else 1
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
        create=attempt_objects(owner, spec, platform, status.resolved, number, observed.progress_endpoint),
        delete=_superseded(observed, name),
    )


def _running(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, job: JobView, now: datetime
) -> Plan[FineTuneJobStatus]:
    pods = observed.pods_of(job.name)
    if observed.progress is not None:
        status = status.model_copy(update={"progress": observed.progress})
    nodes = observed.spec.parallelism.nodes
    check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
    others = _superseded(observed, job.name)
    if sum(pod.phase != "Pending" for pod in pods) < nodes:
        blocked = blockage(pods, now)
        standing = stalled(blocked.reason, blocked.message) if blocked else progressing(Reason.QUEUED)
        return planned(observed, status, "Queued", standing, now, delete=others, requeue_at=check)
    number = status.attempt.number if status.attempt else 1
    standing = progressing(Reason.TRAINING, f"Attempt {number} trains on {nodes} node{'s' if nodes > 1 else ''}.")
    return planned(observed, status, "Training", standing, now, delete=others)


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
            "checkpoints": report.checkpoints[-CHECKPOINTS_SHOWN:],
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
    return _children(observed, [job for job in observed.jobs if job.state == "Active"])


def _superseded(observed: ObservedFineTuneJob, keep: str) -> tuple[Child, ...]:
    """What must not run beside the Job to keep, and of what has ended all but the newest: their logs may be wanted."""
    others = [job for job in observed.jobs if job.name != keep]
    ended = sorted((job for job in others if job.state != "Active"), key=lambda job: job.created)
    return _children(observed, [job for job in others if job.state == "Active"] + ended[:-ENDED_JOBS_KEPT])


def _children(observed: ObservedFineTuneJob, jobs: Iterable[JobView]) -> tuple[Child, ...]:
    return tuple(
        child
        for job in jobs
        if not job.deleting
        for child in job_and_config_map(observed.owner.namespace, job.name, job.uid)
    )
