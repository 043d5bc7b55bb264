"""The Job of the current try, what came of it, and what has not ended yet of others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from finetune_operator.core.plan import Child
from finetune_operator.kube.resources import CONFIG_MAPS
from finetune_operator.pods.leftovers import is_outdated, jobs_to_delete, still_running
from finetune_operator.pods.observed import JobView
from finetune_operator.retried_run.run import ObservedT, Result, RetriedRun, Status


class NextTry(NamedTuple):
    """The next try of the run, counted from 1, and the name of its Job."""

    number: int
    name: str


def next_try(run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status) -> NextTry:
    """The try that follows those in the status."""
    number = (status.try_number or 0) + 1
    return NextTry(number, run.job_name(observed, status, number))


def current_job(run: RetriedRun[ObservedT, Status], observed: ObservedT) -> JobView | None:
    """The Job of the try that is running or has just ended."""
    status = observed.status
    if status.retry_time is not None or run.has_lost_model(observed) or not run.is_same_run(observed):
        return None
    return next((job for job in observed.jobs if job.name == status.job_name), None)


def try_to_watch(run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status) -> JobView | None:
    """The current Job; None if it is outdated and has not started."""
    job = current_job(run, observed)
    if job is None:
        return None
    return None if is_outdated(job, observed.pods_of(job), lambda: run.objects(observed, status)) else job


def result_of_try(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Result | None:
    """What came of the current Job; None without one."""
    job = try_to_watch(run, observed, status)
    return None if job is None else run.try_result(observed, job, now)


def still_there(observed: ObservedT, now: datetime, *, keep: str | None = None) -> str | None:
    """What has not ended yet, except the Job to keep and its Pods; None if everything has."""
    namespace = observed.owner.namespace
    return still_running(namespace, observed.jobs, observed.pods, observed.disowned, now, keep=keep)


def active_tries(run: RetriedRun[ObservedT, Status], observed: ObservedT) -> tuple[Child, ...]:
    """The Jobs that are still running, to be deleted."""
    return tries_to_delete(run, observed, [job for job in observed.jobs if job.state == "Active"])


def tries_to_delete(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, jobs: Iterable[JobView]
) -> tuple[Child, ...]:
    """Jobs and their ConfigMaps, which have the same names.

    A Pod that has not started needs the ConfigMap, so a Job that can't be deleted keeps it. One that a crash leaves
    without its Job goes with its owner.
    """
    namespace = observed.owner.namespace
    children = jobs_to_delete(namespace, jobs, observed.pods)
    if not run.has_config_map:
        return children
    return tuple(replace(one, then=(Child(CONFIG_MAPS, namespace, one.name, None),)) for one in children)
