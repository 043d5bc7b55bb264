"""Attempts: one runs at a time, and the next one starts when time, class, budget and earlier Pods allow it."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus, Phase
from finetune_operator.core.conditions import Standing, progressing
from finetune_operator.core.plan import earliest, planned
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_records import fruitless_disruptions, last_end, running_attempt, with_end
from finetune_operator.finetunejob.concern import JobPlan
from finetune_operator.finetunejob.deadline import class_deadline_seconds
from finetune_operator.finetunejob.objects import attempt_objects, output_uri, train_job_name
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import admitted, over_budget
from finetune_operator.finetunejob.run_key import run_key
from finetune_operator.finetunejob.starting_model import model_source
from finetune_operator.finetunejob.stopping import (
    STOPPING_CHECK_SECONDS,
    give_up_time,
    given_up_words,
    is_quiet,
    next_look,
    strays,
    strays_and_old_jobs,
    what_stops,
)
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.sidecars import lingering_words, look_again
from finetune_operator.pods.start_diagnosis import BLOCKAGE_CHECK_SECONDS, blockage
from finetune_operator.pods.template_hash import has_started, is_outdated


def attempt(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobPlan:
    """Keep one attempt running."""
    running = running_attempt(status)
    job = observed.job(running.job_name) if running else None
    if running is None or job is None:
        return _next_attempt(observed, status, now)
    if not job.deleting and _must_be_made_anew(observed, status, running, job):
        what = "The FineTuneClass, or something else that its Job was made from, changed before it started."
        status = with_end(status, running, "Replaced", now, reason="Changed", message=what)
        return _next_attempt(observed, status, now)
    return _watched(observed, status, running, job, now)


def _next_attempt(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobPlan:
    before = status.attempt
    number = 1 + max(before.number if before else 0, *(ended.number for ended in status.ended_attempts), 0)
    name = train_job_name(observed.owner, run_key(status), number)
    phase, standing = _between_attempts(observed, status)
    if before is not None and before.next_time is not None and now < before.next_time:
        again = next_look(observed, now, before.next_time)
        return planned(observed, status, phase, standing, now, delete=strays(observed, keep=name), requeue_at=again)
    if not is_quiet(observed, now, keep=name):
        standing = progressing(standing.reason, what_stops(observed, now, keep=name))
        again = next_look(observed, now, now + timedelta(seconds=STOPPING_CHECK_SECONDS))
        return planned(observed, status, phase, standing, now, delete=strays(observed, keep=name), requeue_at=again)
    platform = admitted(observed)
    if isinstance(platform, Standing):
        return planned(observed, status, phase, platform, now, delete=strays(observed))
    refused = over_budget(observed, status)
    if refused is not None:
        again = refused.renews
        return planned(observed, status, phase, refused.standing, now, delete=strays(observed), requeue_at=again)
    return _started(observed, status, platform, number, now)


def _between_attempts(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> tuple[Phase, Standing]:
    """Where the run stands while no attempt runs, and what ended the one before."""
    before, end = status.attempt, last_end(status)
    if before is None or end is None or end.outcome == "Suspended":
        return "Queued", progressing(Reason.QUEUED, "The next attempt is about to start.")
    if end.outcome == "Replaced":
        return "Queued", progressing(Reason.QUEUED, f"{end.message} It is made anew.")
    if end.outcome == "Failed" and before.next_time is not None:
        message = (
            f"Attempt {before.number} failed ({end.reason}: {end.message}) Retry {before.retries} of "
            f"{observed.spec.retry_limit} starts at {before.next_time:%H:%M:%S} UTC from the newest checkpoint."
        )
    else:
        message = (
            f"Attempt {before.number} was disrupted ({end.reason}: {end.message}) The next one resumes from the newest "
            f"checkpoint.{_apart_words(status, before)}"
        )
    return "Retrying", progressing(Reason.RETRYING, message)


def _apart_words(status: FineTuneJobStatus, before: AttemptStatus) -> str:
    """Why the next attempt waits after a disruption, with a space before it; empty where it is the usual moment."""
    count = fruitless_disruptions(status.ended_attempts)
    if count < 2 or before.next_time is None:
        return ""
    return f" {count} in a row were disrupted without progress: it starts at {before.next_time:%H:%M:%S} UTC."


def _started(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass, number: int, now: datetime
) -> JobPlan:
    """Make the objects of the next attempt."""
    owner, before = observed.owner, status.attempt
    name = train_job_name(owner, run_key(status), number)
    if status.storage_uri is None:
        status = status.model_copy(update={"storage_uri": output_uri(owner, run_key(status), platform)})
    objects = objects_of_attempt(observed, status, platform, number)
    started = AttemptStatus(
        number=number,
        job_name=name,
        class_generation=platform.generation,
        retries=before.retries if before else 0,
        disruptions=before.disruptions if before else 0,
        start_time=whole_seconds(now),
        class_deadline_seconds=class_deadline_seconds(observed, status),
        reports_to=observed.progress_endpoint.digest if observed.progress_endpoint else None,
    )
    status = status.model_copy(update={"attempt": started, "class_name": platform.name})
    standing = progressing(Reason.QUEUED, _queued_words(platform.spec.scheduling.queue_name))
    return planned(
        observed,
        status,
        "Queued",
        standing,
        now,
        create=objects,
        delete=strays_and_old_jobs(observed, keep=name),
        requeue_at=now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS),
    )


def objects_of_attempt(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, platform: ResolvedClass, number: int
) -> list[Object]:
    """What an attempt is made of, as class and spec are now."""
    assert status.resolved is not None
    return attempt_objects(
        observed.owner,
        observed.spec,
        platform,
        model_source(observed, status),
        status.resolved,
        number,
        observed.progress_endpoint,
        status.checkpoint_seconds,
        run_key(status),
        class_deadline_seconds(observed, status),
        status.storage_uri,
    )


def _must_be_made_anew(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, running: AttemptStatus, job: JobView
) -> bool:
    """Whether the attempt has not started and would be made otherwise now. A class that refuses alters nothing."""
    pods, platform = observed.pods_of(job.name), admitted(observed)
    if status.phase == "Training" or has_started(job, pods) or isinstance(platform, Standing):
        return False
    return is_outdated(job, pods, objects_of_attempt(observed, status, platform, running.number))


def _watched(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, running: AttemptStatus, job: JobView, now: datetime
) -> JobPlan:
    """Where the running attempt stands."""
    pods, others = observed.pods_of(job.name), strays(observed, keep=job.name)
    starts = [pod.started_time for pod in pods if pod.started_time is not None]
    if running.pods_start_time is None and starts:
        running = running.model_copy(update={"pods_start_time": whole_seconds(min(starts))})
        status = status.model_copy(update={"attempt": running})
    given_up = given_up_words(observed, now, keep=job.name)
    if job.deleting:
        words = f"Somebody deletes the Job of attempt {running.number}; the next one follows."
        return planned(observed, status, "Retrying", progressing(Reason.RETRYING, words), now, delete=others)
    if job.suspended:
        standing = progressing(Reason.QUEUED, _queued_words(job.queue_name or "") + given_up)
        return planned(observed, status, "Queued", standing, now, delete=others)
    has_ended = job.ending or job.state != "Active"
    if not has_started(job, pods) and status.phase != "Training":
        blocked = blockage(job, pods, observed.warnings, now)
        standing = progressing(Reason.QUEUED, _queued_words(None) + given_up)
        if blocked is not None:
            standing = blocked.standing
        check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
        return planned(observed, status, "Queued", standing, now, delete=others, requeue_at=check)
    words = f"Attempt {running.number} trains on {job.parallelism} node{'s' if job.parallelism > 1 else ''}."
    if has_ended:
        words = f"Attempt {running.number} has ended on a node; waits until its Pods have ended on the others."
    again = earliest([*(give_up_time(pod) for pod in pods if not pod.ended), look_again(pods)])
    standing = progressing(
        Reason.TRAINING, words + lingering_words(pods) + _unheard_words(observed, running) + given_up
    )
    return planned(observed, status, "Training", standing, now, delete=others, requeue_at=again)


def _unheard_words(observed: ObservedFineTuneJob, running: AttemptStatus) -> str:
    """That reports of this attempt can't arrive, with a space before it; empty while they can, or do."""
    endpoint = observed.progress_endpoint
    if observed.progress is not None or observed.ledger is not None:
        return ""  # A CA bundle that gained a certificate is another one, and still trusts the old.
    if running.reports_to is None or (endpoint is not None and endpoint.digest == running.reports_to):
        return ""
    return (
        " Its Pods' reports are refused: the operator's address or CA is another one than when they were made. Step "
        "and loss stand still until the end, of which nothing is lost."
    )


def _queued_words(queue: str | None) -> str:
    """None: the Pods wait for their nodes; a queue: the Job waits for its quota."""
    if queue is None:
        return "The Pods are made and wait to be started."
    return f"The Job waits in the queue {queue!r} for quota (Kueue starts it)." if queue else "The Job is suspended."
