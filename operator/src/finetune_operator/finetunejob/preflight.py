"""Preflight: dataset, model and storage are read on a CPU Pod, again and ever more slowly until they are good."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.auto import resolve_for
from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetStatus, FineTuneJobStatus, PreflightStatus
from finetune_api.outcome import Failure, PreflightReport
from finetune_operator.core.conditions import Standing, known_reason, progressing, stalled
from finetune_operator.core.plan import planned
from finetune_operator.finetunejob.completion import failed
from finetune_operator.finetunejob.concern import JobPlan, Step
from finetune_operator.finetunejob.objects import output_uri, preflight_job_name, preflight_objects
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import admitted, with_way_out
from finetune_operator.finetunejob.run_key import run_key
from finetune_operator.finetunejob.starting_model import model_source
from finetune_operator.finetunejob.stopping import (
    STOPPING_CHECK_SECONDS,
    is_quiet,
    strays,
    strays_and_old_jobs,
    what_stops,
)
from finetune_operator.finetunejob.storage_folders import with_folder
from finetune_operator.pods.backoff import retry_delay_seconds
from finetune_operator.pods.exit_diagnosis import (
    JOB_DEADLINE_EXCEEDED,
    failure,
    failure_words,
    first_disruption,
    outcome,
)
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import standing_of_try
from finetune_operator.pods.sidecars import ended_well, has_answered, lingering_words
from finetune_operator.pods.start_diagnosis import (
    BLOCKAGE_CHECK_SECONDS,
    blockage,
    image_pull_timed_out,
    image_pull_words,
)
from finetune_operator.pods.template_hash import has_started, is_outdated


def preflight(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """Go on once a try has found everything good."""
    found = status.preflight
    if found is not None and found.succeeded and status.resolved is not None:
        return status
    if found is not None and found.retry_time is not None and now < found.retry_time:
        return planned(
            observed, status, "Validating", _standing(status), now, delete=strays(observed), requeue_at=found.retry_time
        )
    job = observed.job(found.job_name) if found is not None and found.retry_time is None else None
    if found is None or job is None:
        return _next_try(observed, status, found.try_number + 1 if found else 1, now)
    if not job.deleting and _must_be_made_anew(observed, status, found, job):
        again = found.model_copy(update={"retry_time": whole_seconds(now)})
        return _next_try(observed, status.model_copy(update={"preflight": again}), found.try_number + 1, now)
    return _watched(observed, status, found, job, now)


def _next_try(observed: ObservedFineTuneJob, status: FineTuneJobStatus, number: int, now: datetime) -> JobPlan:
    """The first try, the one after a failure, or one in place of a try whose Job somebody took away."""
    owner, spec = observed.owner, observed.spec
    name = preflight_job_name(owner, run_key(status), number)
    platform = admitted(observed)
    if isinstance(platform, Standing):
        return planned(observed, status, "Validating", platform, now, delete=strays(observed))
    if not is_quiet(observed, now, keep=name):
        standing = progressing(Reason.VALIDATING, what_stops(observed, now, keep=name))
        check = now + timedelta(seconds=STOPPING_CHECK_SECONDS)
        return planned(
            observed, status, "Validating", standing, now, delete=strays(observed, keep=name), requeue_at=check
        )
    place = output_uri(owner, run_key(status), platform)
    status = status.model_copy(
        update={
            "class_name": platform.name,
            "storage_uri": place,
            "storage_folders": with_folder(status.storage_folders, place),
            "preflight": PreflightStatus(try_number=number, job_name=name),
        }
    )
    objects = preflight_objects(owner, spec, platform, model_source(observed, status), number, run_key(status))
    others = strays_and_old_jobs(observed, keep=name)
    check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
    return planned(
        observed, status, "Validating", _standing(status), now, create=objects, delete=others, requeue_at=check
    )


def _must_be_made_anew(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, found: PreflightStatus, job: JobView
) -> bool:
    """Whether the try has not started and would be made otherwise now. A class that refuses alters nothing."""
    pods, platform = observed.pods_of(job.name), admitted(observed)
    if has_started(job, pods) or isinstance(platform, Standing):
        return False
    model = model_source(observed, status)
    return is_outdated(
        job, pods, preflight_objects(observed.owner, observed.spec, platform, model, found.try_number, run_key(status))
    )


def _watched(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, found: PreflightStatus, job: JobView, now: datetime
) -> Step:
    """What the Pod of this try is doing, or what it said."""
    pods = observed.pods_of(job.name)
    if found.disruption is None:
        found = found.model_copy(update={"disruption": first_disruption(pods)})
        status = status.model_copy(update={"preflight": found})
    # What the Pod says is enough: the Job's controller counts it a second later, or more.
    if job.state == "Active" and not has_answered(job, pods, now):
        blocked = blockage(job, pods, observed.warnings, now)
        if blocked is not None and image_pull_timed_out(blocked, now):
            return failed(observed, status, stalled(blocked.reason, image_pull_words(blocked)), now)
        standing = _standing(status)
        standing = blocked.standing if blocked else replace(standing, message=standing.message + lingering_words(pods))
        check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
        others = strays(observed, keep=job.name)
        return planned(observed, status, "Validating", standing, now, delete=others, requeue_at=check)
    return _answered(observed, status, found, job, now)


def _answered(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, found: PreflightStatus, job: JobView, now: datetime
) -> Step:
    """The Pod has said its last word, or is gone."""
    pods = observed.pods_of(job.name)
    said = outcome(pods)
    if isinstance(said, PreflightReport) and said.dataset.training is not None and ended_well(job, pods, now):
        return status.model_copy(
            update={
                "preflight": found.model_copy(update={"succeeded": True}),
                "dataset": said.dataset,
                "model": said.model,
                "memory": said.memory,
                "resolved": resolve_for(observed.spec, said),
                "failure": None,
            }
        )
    retry_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(found.try_number))
    ended = found.model_copy(update={"succeeded": False, "retry_time": retry_time})
    seen = found.disruption or first_disruption(pods)
    if not isinstance(said, Failure) and seen is not None and job.reason != JOB_DEADLINE_EXCEEDED:
        status = status.model_copy(update={"preflight": ended.model_copy(update={"disruption": seen})})
        return planned(observed, status, "Validating", _standing(status), now, requeue_at=retry_time)
    diagnosis = failure(pods, job.message, job.reason)
    dataset: DatasetStatus | None = said.dataset if isinstance(said, Failure) else None
    status = status.model_copy(update={"preflight": ended, "dataset": dataset or status.dataset, "failure": diagnosis})
    change = _change_for_good(job, said)
    if change is not None:
        status = status.model_copy(update={"preflight": ended.model_copy(update={"retry_time": None})})
        words = f"{failure_words(diagnosis)} {change}"
        return failed(observed, status, stalled(known_reason(diagnosis.reason), words), now)
    return planned(observed, status, "Validating", _standing(status), now, requeue_at=retry_time)


def _change_for_good(job: JobView, said: object) -> str | None:
    """What to change where another try ends alike; None where it may be better."""
    if job.reason == JOB_DEADLINE_EXCEEDED:
        return "Another try would take as long: make the dataset smaller and change runId."
    if isinstance(said, Failure) and said.reason == Reason.INVALID_SPEC and not said.retryable:
        return "Correct the spec and change runId."  # Another spec is another run.
    return None


def _standing(status: FineTuneJobStatus) -> Standing:
    found = status.preflight
    retry_time, seen = (found.retry_time, found.disruption) if found is not None else (None, None)
    if status.failure is None and seen is not None and retry_time is not None:
        words = f"Pod {seen.pod} was taken away ({seen.reason}: {seen.message})."
        return progressing(Reason.VALIDATING, f"{words} Preflight starts again at {retry_time:%H:%M:%S} UTC.")
    return with_way_out(standing_of_try(Reason.VALIDATING, status.failure, retry_time))
