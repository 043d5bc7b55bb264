"""Preflight: dataset, model and storage are read on a CPU Pod, again and ever more slowly until they are good."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.auto import resolve_for
from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetStatus, FineTuneJobStatus, PreflightStatus
from finetune_api.outcome import Failure, PreflightReport
from finetune_operator.blockages import BLOCKAGE_CHECK_SECONDS, blockage
from finetune_operator.finetunejob.completion import failed
from finetune_operator.finetunejob.concern import JobPlan, Step
from finetune_operator.finetunejob.objects import output_uri, preflight_job_name, preflight_objects
from finetune_operator.finetunejob.observe import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import admitted
from finetune_operator.finetunejob.starting_model import model_source
from finetune_operator.finetunejob.stopping import (
    STOPPING_CHECK_SECONDS,
    is_quiet,
    is_spent,
    strays,
    strays_and_old_jobs,
    what_stops,
)
from finetune_operator.finetunejob.verdict import image_pull_timed_out, image_pull_words
from finetune_operator.plan import planned
from finetune_operator.pod_diagnosis import failure, failure_words, outcome
from finetune_operator.pod_views import JobView
from finetune_operator.retry import retry_delay_seconds
from finetune_operator.status import Standing, progressing, stalled
from finetune_operator.tries import standing_of_try


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
    return _watched(observed, status, found, job, now)


def _next_try(observed: ObservedFineTuneJob, status: FineTuneJobStatus, number: int, now: datetime) -> JobPlan:
    """The first try, the one after a failure, or one in place of a try whose Job somebody took away."""
    owner, spec = observed.owner, observed.spec
    name = preflight_job_name(owner, spec.run_id, number)
    platform = admitted(observed)
    if isinstance(platform, Standing):
        return planned(observed, status, "Validating", platform, now, delete=strays(observed))
    if not is_quiet(observed, now, keep=name):
        standing = progressing(Reason.VALIDATING, what_stops(observed, now, keep=name))
        check = now + timedelta(seconds=STOPPING_CHECK_SECONDS)
        return planned(
            observed, status, "Validating", standing, now, delete=strays(observed, keep=name), requeue_at=check
        )
    status = status.model_copy(
        update={
            "class_name": platform.name,
            "storage_uri": output_uri(owner, spec, platform),
            "preflight": PreflightStatus(try_number=number, job_name=name),
        }
    )
    objects = preflight_objects(owner, spec, platform, model_source(observed, status), number)
    others = strays_and_old_jobs(observed, keep=name)
    check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
    return planned(
        observed, status, "Validating", _standing(status), now, create=objects, delete=others, requeue_at=check
    )


def _watched(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, found: PreflightStatus, job: JobView, now: datetime
) -> Step:
    """What the Pod of this try is doing, or what it said."""
    pods = observed.pods_of(job.name)
    # What the Pod says is enough: the Job's controller counts it a second later, or more.
    if job.state == "Active" and not is_spent(observed, job):
        blocked = blockage(job, pods, observed.warnings, now)
        if blocked is not None and image_pull_timed_out(blocked, now):
            return failed(observed, status, stalled(blocked.reason, image_pull_words(blocked)), now)
        standing = stalled(blocked.reason, blocked.message) if blocked else _standing(status)
        check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
        others = strays(observed, keep=job.name)
        return planned(observed, status, "Validating", standing, now, delete=others, requeue_at=check)
    said = outcome(pods)
    if isinstance(said, PreflightReport) and said.dataset.training is not None:
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
    # What the spec says can't heal by itself: only a new run, with another spec, can.
    hopeless = isinstance(said, Failure) and said.reason == Reason.INVALID_SPEC
    retry_time = None if hopeless else whole_seconds(now) + timedelta(seconds=retry_delay_seconds(found.try_number))
    dataset: DatasetStatus | None = said.dataset if isinstance(said, Failure) else None
    status = status.model_copy(
        update={
            "preflight": found.model_copy(update={"succeeded": False, "retry_time": retry_time}),
            "dataset": dataset or status.dataset,
            "failure": failure(pods, job.message),
        }
    )
    if hopeless and status.failure is not None:
        standing = stalled(Reason.INVALID_SPEC, f"{failure_words(status.failure)} Change spec.runId with it.")
        return failed(observed, status, standing, now)
    return planned(observed, status, "Validating", _standing(status), now, requeue_at=retry_time)


def _standing(status: FineTuneJobStatus) -> Standing:
    retry_time = status.preflight.retry_time if status.preflight else None
    return standing_of_try(Reason.VALIDATING, status.failure, retry_time)
