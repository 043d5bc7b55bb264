"""What becomes of a deleted FineTuneJob's objects in the storage, where its class says reclaimPolicy: Delete.

A finalizer keeps the object until its training has stopped and a Job of the trainer image has removed what the runs
wrote. It never keeps it longer than GIVE_UP_SECONDS: what could not be removed stays, and an Event on the class tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from finetune_api.base import LINE_LENGTH
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.run import RUN_CONFIG_DIRECTORY, RUN_CONFIG_PATH, DeleteRun, JobIdentity
from finetune_operator.core.conditions import EventNote, Standing, progressing
from finetune_operator.core.ownership import Owner, child_name, controlled_by_class, owner_of
from finetune_operator.core.plan import Child, Farewell, LeftBehind, earliest, planned
from finetune_operator.finetuneclass.resolve import ResolvedClass, job_location, observe_class, storage_config
from finetune_operator.finetunejob.attempt_records import newest_job
from finetune_operator.finetunejob.observe import ObservedFineTuneJob
from finetune_operator.finetunejob.storage_folders import FOLDERS_KEPT, known_folders, with_folder
from finetune_operator.kube.client import ApiError, Kube
from finetune_operator.kube.resources import JOBS, NAMESPACES, Object
from finetune_operator.pods.backoff import retry_delay_seconds
from finetune_operator.pods.builders import PodRole, job
from finetune_operator.pods.exit_diagnosis import failure, failure_words
from finetune_operator.pods.observe import disowned_job_and_pods, owned_jobs_and_pods
from finetune_operator.pods.observed import JobView, PodView, job_view, parse_time, pod_view
from finetune_operator.pods.retried_job import runs_on
from finetune_operator.pods.roles import DELETE_ROLE
from finetune_operator.pods.sidecars import ended_well
from finetune_operator.pods.start_diagnosis import BLOCKAGE_CHECK_SECONDS, blockage

FINALIZER = "finetune.dev/storage"
TRIES = 5
GIVE_UP_SECONDS = 600
ENDED_KEPT_SECONDS = 3600
"""How long an ended Job is kept that no operator removes."""
RUN_ANNOTATION = "finetune.dev/run"
STORAGE_KEPT = "StorageKept"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ObservedDeletion:
    """What is left of a FineTuneJob that is being deleted."""

    owner: Owner
    generation: int
    status: FineTuneJobStatus
    class_name: str | None
    platform: ResolvedClass | Standing
    deleted: datetime
    namespace_ends: bool = False
    """Nothing can be made in a namespace that is being deleted."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """See ObservedFineTuneJob."""

    @property
    def tries(self) -> list[JobView]:
        """The Jobs that remove objects, oldest first."""
        return sorted((job for job in self.jobs if job.role == DELETE_ROLE), key=lambda job: (job.created, job.name))


def holds_storage(observed: ObservedFineTuneJob) -> bool | None:
    """Whether the class wants the storage emptied at the end; None: there is no class now that could tell."""
    if isinstance(observed.platform, Standing):
        return None
    return observed.platform.spec.reclaim_policy == "Delete"


async def observe(kube: Kube, parent: Object, *, trainer_image: str | None) -> ObservedDeletion:
    """Read everything that the farewell depends on."""
    owner = owner_of(parent)
    try:
        status = FineTuneJobStatus.from_another_version(parent.get("status", {}))
    except ValidationError:
        status = _salvaged(parent["status"])
    class_name = status.class_name or parent["spec"].get("className")
    platform = await observe_class(kube, class_name, trainer_image)
    controllers = (platform.uid,) if isinstance(platform, ResolvedClass) else ()
    jobs, pods = await owned_jobs_and_pods(kube, owner, *controllers)
    disowned, theirs = await disowned_job_and_pods(kube, owner, newest_job(status), jobs)
    return ObservedDeletion(
        owner=owner,
        generation=parent["metadata"]["generation"],
        status=status,
        class_name=class_name,
        platform=platform,
        deleted=parse_time(parent["metadata"]["deletionTimestamp"]),
        namespace_ends=await _ends(kube, owner.namespace),
        jobs=tuple(job_view(item) for item in jobs),
        pods=tuple(pod_view(item) for item in pods + theirs),
        disowned=tuple(job_view(item) for item in disowned),
    )


def _salvaged(wire: Object) -> FineTuneJobStatus:
    """Of a status that can't be read: where its runs lie, so that nothing stays behind unsaid."""
    runs = [run for run in [wire, *_list(wire.get("history"))] if isinstance(run, dict)]
    folders = [folder for folder in map(_line, _list(wire.get("storageFolders"))) if folder is not None]
    for uri in [_line(run.get("storageUri")) for run in runs]:
        folders = with_folder(folders, uri) if uri is not None else folders
    class_name, run_id = _line(wire.get("className")), _line(wire.get("runId"))
    return FineTuneJobStatus(class_name=class_name, run_id=run_id, storage_folders=folders[-FOLDERS_KEPT:])


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _line(value: object) -> str | None:
    """A string that this version could have written."""
    return value if isinstance(value, str) and len(value) <= LINE_LENGTH else None


def plan(observed: ObservedDeletion, now: datetime) -> Farewell[FineTuneJobStatus]:
    """Stop what runs, remove what it wrote, let the object go."""
    platform, tries, folders = observed.platform, observed.tries, _folders(observed)
    if isinstance(platform, Standing):
        return _give_up(observed, folders, platform.message, now)
    if platform.spec.reclaim_policy != "Delete" or not folders:
        return _release(observed, now)
    if tries and ended_well(tries[-1], _pods_of(observed, tries[-1]), now):
        return _release(observed, now)
    if observed.namespace_ends:
        return _give_up(observed, folders, "The namespace was deleted with it, where nothing can be started.", now)
    deadline = observed.deleted + timedelta(seconds=GIVE_UP_SECONDS)
    if now >= deadline:
        return _give_up(observed, folders, _trouble(observed, now) or "It took too long.", now)
    running = _writers(observed)
    if running:
        words = f"{', '.join(running[:3])} must end before the storage is emptied."
        return _wait(observed, words, now, deadline)
    if tries and tries[-1].state == "Active":
        words = _trouble(observed, now) or f"Job {tries[-1].name} removes {', '.join(folders)}."
        return _wait(observed, words, now, deadline)
    if len(tries) >= TRIES:
        return _give_up(observed, folders, _trouble(observed, now), now)
    if tries:
        again = (tries[-1].ended or tries[-1].created) + timedelta(seconds=retry_delay_seconds(len(tries)))
        if now < again:
            words = f"{_trouble(observed, now)} Tried again at {again:%H:%M:%S} UTC, {len(tries) + 1} of {TRIES}."
            return _wait(observed, words, now, deadline, again)
    removal = delete_job(observed.owner, observed.status.run_id or "", platform, folders, len(tries) + 1)
    return _wait(observed, f"A Job removes {', '.join(folders)}.", now, deadline, create=(removal,))


def delete_job(owner: Owner, run_id: str, platform: ResolvedClass, folders: list[str], number: int) -> Object:
    """The Job that removes the objects. It goes by itself, and its run configuration with it.

    Its owner is the class: a foreground deletion of the FineTuneJob would remove it before it has done its work.
    """
    run = DeleteRun(
        job=JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=run_id),
        storage=storage_config(platform.spec),
        folder_uris=folders,
    )
    body = job(
        owner,
        # A class made anew does not control its namesake's Job, nor any class one of an older operator's.
        child_name(owner, DELETE_ROLE, platform.uid, number),
        PodRole(DELETE_ROLE, (DELETE_ROLE, RUN_CONFIG_PATH)),
        platform.spec,
        deadline_seconds=GIVE_UP_SECONDS,
        ttlSecondsAfterFinished=ENDED_KEPT_SECONDS,
    )
    body["metadata"]["ownerReferences"] = controlled_by_class(platform.name, platform.uid)
    template = body["spec"]["template"]
    template["metadata"]["annotations"] |= {RUN_ANNOTATION: run.model_dump_json(by_alias=True)}
    file = {
        "path": RUN_CONFIG_PATH.removeprefix(f"{RUN_CONFIG_DIRECTORY}/"),
        "fieldRef": {"fieldPath": f"metadata.annotations['{RUN_ANNOTATION}']"},
    }
    volumes = [volume for volume in template["spec"]["volumes"] if volume["name"] != "run"]
    template["spec"]["volumes"] = [{"name": "run", "downwardAPI": {"items": [file]}}, *volumes]
    return body


def _folders(observed: ObservedDeletion) -> list[str]:
    """The folders that hold this object's runs: where the status says, and where a run may have begun unsaid."""
    found = set(known_folders(observed.owner, observed.status))
    if observed.jobs and isinstance(observed.platform, ResolvedClass):
        found.add(job_location(observed.platform.spec, observed.owner).uri)
    return sorted(found)


def _writers(observed: ObservedDeletion) -> list[str]:
    """Names of what may still write into the storage."""
    jobs = [f"Job {job.name}" for job in observed.jobs if job.role != DELETE_ROLE and job.state == "Active"]
    lost = [f"Job {job.name} (delete it: its ownerReferences are gone)" for job in observed.disowned if runs_on(job)]
    pods = [f"Pod {pod.name}" for pod in observed.pods if pod.role != DELETE_ROLE and not pod.ended]
    return [*lost, *jobs, *pods]


def _wait(
    observed: ObservedDeletion,
    words: str,
    now: datetime,
    deadline: datetime,
    again: datetime | None = None,
    create: tuple[Object, ...] = (),
) -> Farewell[FineTuneJobStatus]:
    """The object stays for now. Its training Jobs never do."""
    active = [job for job in observed.jobs if job.role != DELETE_ROLE and job.state == "Active" and not job.deleting]
    look = earliest([again or now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS), deadline])
    standing = progressing(Reason.DELETING, words)
    phase = observed.status.phase
    delete = _children(observed, active)
    return Farewell(
        planned(observed, observed.status, phase, standing, now, create=create, delete=delete, requeue_at=look)
    )


def _release(
    observed: ObservedDeletion, now: datetime, left_behind: LeftBehind | None = None
) -> Farewell[FineTuneJobStatus]:
    """The object goes, and the Jobs that no garbage collector removes go before it."""
    gone = planned(
        observed,
        observed.status,
        observed.status.phase,
        progressing(Reason.DELETING),
        now,
        delete=_children(observed, observed.tries),
    )
    return Farewell(gone, release=True, left_behind=left_behind)


def _give_up(observed: ObservedDeletion, folders: list[str], why: str, now: datetime) -> Farewell[FineTuneJobStatus]:
    """What can't be removed stays, and the platform team hears of it."""
    if not folders or observed.class_name is None:
        return _release(observed, now)
    owner = observed.owner
    message = (
        f"FineTuneJob {owner.namespace}/{owner.name} (uid {owner.uid}) is deleted, but not its objects in "
        f"{', '.join(folders)}: {why}"
    )
    note = EventNote("Warning", STORAGE_KEPT, message)
    return _release(observed, now, LeftBehind(observed.class_name, note))


def _trouble(observed: ObservedDeletion, now: datetime) -> str:
    """Why the storage is not emptied yet; empty while nothing is wrong."""
    tries = observed.tries
    if not tries:
        return ""
    newest = tries[-1]
    pods = _pods_of(observed, newest)
    if newest.state == "Failed":
        return failure_words(failure(pods, newest.message))
    blocked = blockage(newest, pods, (), now)
    return blocked.message if blocked is not None else ""


def _pods_of(observed: ObservedDeletion, job: JobView) -> list[PodView]:
    return [pod for pod in observed.pods if pod.job_uid == job.uid]


def _children(observed: ObservedDeletion, jobs: list[JobView]) -> tuple[Child, ...]:
    return tuple(Child(JOBS, observed.owner.namespace, job.name, job.uid) for job in jobs)


async def _ends(kube: Kube, name: str) -> bool:
    try:
        namespace = await kube.get(NAMESPACES, None, name)
    except ApiError as error:
        if error.status != 403:
            raise
        # Without that right the storage is given up only after GIVE_UP_SECONDS.
        log.warning("may not read the namespace", namespace=name, error=str(error))
        return False
    return namespace is None or "deletionTimestamp" in namespace["metadata"]
