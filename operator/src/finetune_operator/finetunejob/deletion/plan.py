"""The deletion of a FineTuneJob whose class has reclaimPolicy: Delete: its stored objects are deleted first.

A finalizer keeps the object until its training has stopped and a Job of the trainer image has deleted what its runs
stored, for at most STORAGE_DEADLINE_SECONDS: what could not be deleted stays, and an Event on the class reports it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.pod_contracts.run import run_folder
from finetune_operator.core.conditions import EventNote, Readiness, failure_message, progressing, sentence
from finetune_operator.core.plan import Child, DeletionPlan, LeftBehind, earliest, planned
from finetune_operator.finetunejob.deletion.objects import STORAGE_DEADLINE_SECONDS, delete_job
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.deletion.reclaim import Folder, Reclaimed, reclaim, wants_storage_emptied
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.kube.resources import Object
from finetune_operator.pods.leftovers import job_to_delete, stuck_jobs
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import Disrupted, Failed, RetriedJob, Running, Succeeded
from finetune_operator.pods.roles import DELETE_ROLE
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS

FINALIZER = "finetune.dev/storage"
STORAGE_KEPT = "StorageKept"
MOST_JOBS = 5
DELETION = RetriedJob(retry_limit=MOST_JOBS - 1, retries_every_failure=True)
"""Rejected credentials or an unavailable bucket may be fixed before the deadline. The status of a deleted object is not
written any more, so the tries are counted by their Jobs, including disrupted ones."""


def holds_storage(observed: ObservedFineTuneJob) -> bool | None:
    """Whether one of its classes has reclaimPolicy: Delete; None if that can't be determined now."""
    return wants_storage_emptied((observed.class_, *observed.folder_classes))


def plan(observed: ObservedDeletion, now: datetime) -> DeletionPlan[FineTuneJobStatus]:
    """Stop running Pods, delete the stored objects, remove the finalizer."""
    class_, jobs, found = observed.class_, observed.delete_jobs, reclaim(observed)
    if isinstance(class_, Readiness) or not found.removed:
        return _keep_storage(observed, found.kept, now)
    result = _result(observed, now)
    if isinstance(result, Succeeded):
        return _keep_storage(observed, found.kept, now)
    if observed.namespace_ends:
        return _give_up(observed, found, "The namespace is being deleted too, and nothing can be started in it.", now)
    deadline = observed.deleted + timedelta(seconds=STORAGE_DEADLINE_SECONDS)
    if now >= deadline:
        return _give_up(observed, found, _problem(result) or "It took too long.", now)
    writers = _writers(observed)
    if writers:
        message = f"{', '.join(writers[:3])} must end before the storage is emptied."
        return _wait(observed, message, now, deadline)
    if isinstance(result, Running):
        message = _problem(result) or f"Job {jobs[-1].name} is removing {', '.join(found.removed)}."
        return _wait(observed, message, now, deadline)
    if result is not None:
        if (isinstance(result, Failed) and result.final) or not DELETION.allows_another(len(jobs)):
            return _give_up(observed, found, _problem(result), now)
        again = DELETION.next_time(len(jobs), jobs[-1].end_time or jobs[-1].created)
        if now < again:
            message = (
                f"{_problem(result)} The next try, {len(jobs) + 1} of {MOST_JOBS}, starts at {again:%H:%M:%S} UTC."
            )
            return _wait(observed, message, now, deadline, again)
    removal = delete_job(observed.owner, observed.status.run_id or "", class_, list(found.removed), len(jobs) + 1)
    return _wait(observed, f"A Job is removing {', '.join(found.removed)}.", now, deadline, create=(removal,))


def _writers(observed: ObservedDeletion) -> list[str]:
    """The names of Jobs and Pods that may still write to the storage."""
    jobs = [f"{job.resource.kind} {job.name}" for job in observed.jobs if job.role != DELETE_ROLE and job.is_active]
    lost = [
        f"{job.resource.kind} {job.name} (delete it: it has lost its ownerReferences)"
        for job in observed.disowned
        if job.is_active
    ]
    pods = [f"Pod {pod.name}" for pod in observed.pods if pod.role != DELETE_ROLE and not pod.is_terminal]
    return list(dict.fromkeys([*lost, *jobs, *pods]))


def _wait(
    observed: ObservedDeletion,
    message: str,
    now: datetime,
    deadline: datetime,
    again: datetime | None = None,
    create: tuple[Object, ...] = (),
) -> DeletionPlan[FineTuneJobStatus]:
    """Keep the finalizer for now. Training Jobs are deleted in any case."""
    training = [job for job in observed.jobs if job.role != DELETE_ROLE]
    active = [*(job for job in training if job.is_active), *stuck_jobs(training, observed.pods)]
    requeue_at = earliest([again or now + timedelta(seconds=START_CHECK_SECONDS), deadline])
    readiness = progressing(Reason.DELETING, message)
    phase = observed.status.phase
    delete = _children(observed, active)
    return DeletionPlan(
        planned(observed, observed.status, phase, readiness, now, create=create, delete=delete, requeue_at=requeue_at)
    )


def _release(
    observed: ObservedDeletion, now: datetime, left_behind: LeftBehind | None = None
) -> DeletionPlan[FineTuneJobStatus]:
    """Remove the finalizer, and first delete the Jobs that the garbage collector would leave."""
    last_plan = planned(
        observed,
        observed.status,
        observed.status.phase,
        progressing(Reason.DELETING),
        now,
        delete=_children(observed, observed.delete_jobs),
    )
    return DeletionPlan(last_plan, release=True, left_behind=left_behind)


def _give_up(observed: ObservedDeletion, found: Reclaimed, why: str, now: datetime) -> DeletionPlan[FineTuneJobStatus]:
    """Keep the folders that were to be deleted, too."""
    return _keep_storage(observed, (*(Folder(uri, why) for uri in found.removed), *found.kept), now)


def _keep_storage(
    observed: ObservedDeletion, folders: Sequence[Folder], now: datetime
) -> DeletionPlan[FineTuneJobStatus]:
    """Remove the finalizer. An Event tells the platform team which folders could not be deleted."""
    if not folders or observed.class_name is None:
        return _release(observed, now)
    owner, whys = observed.owner, list(dict.fromkeys(folder.why for folder in folders))
    places = [f"{', '.join(folder.uri for folder in folders if folder.why == why)}: {sentence(why)}" for why in whys]
    message = (
        f"FineTuneJob {owner.namespace}/{owner.name} (uid {owner.uid}) was deleted, but not its objects in "
        f"{' Nor those in '.join(places)} To remove them, with the credentials of their class: "
        f"{_removal_command(observed, folders)}"
    )
    note = EventNote("Warning", STORAGE_KEPT, message)
    return _release(observed, now, LeftBehind(observed.class_name, note))


def _removal_command(observed: ObservedDeletion, folders: Sequence[Folder]) -> str:
    """What a person runs for each folder; complete if it is one, at an endpoint that the status knows."""
    uris = sorted({folder.uri for folder in folders})
    folder = shlex.quote(uris[0]) if len(uris) == 1 else "FOLDER"
    command = f"aws s3 rm --recursive {folder}/ --exclude '*' --include '*{run_folder('', observed.owner.uid)}/*'"
    known = {one.endpoint for one in observed.status.storage_folders if one.uri in uris}
    endpoint = known.pop() if len(known) == 1 else None
    if endpoint == "":
        return command  # AWS's
    return f"{command} --endpoint-url {'ENDPOINT' if endpoint is None else shlex.quote(endpoint)}"


def _result(observed: ObservedDeletion, now: datetime) -> Running | Succeeded | Disrupted | Failed | None:
    """The result of the newest Job; None before the first one."""
    if not observed.delete_jobs:
        return None
    newest = observed.delete_jobs[-1]
    pods = [pod for pod in observed.pods if pod.job_uid == newest.uid]
    return DELETION.result(newest, pods, (), now)


def _problem(result: Running | Succeeded | Disrupted | Failed | None) -> str:
    """Why the storage has not been emptied yet; empty while nothing is wrong."""
    if isinstance(result, Running):
        return result.start.message if result.start is not None else ""
    if isinstance(result, Failed):
        return failure_message(result.diagnosis)
    return result.message if isinstance(result, Disrupted) else ""


def _children(observed: ObservedDeletion, jobs: list[JobView]) -> tuple[Child, ...]:
    return tuple(job_to_delete(observed.owner.namespace, job) for job in jobs)
