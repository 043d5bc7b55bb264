"""Jobs and Pods as plans see them: the fields that matter, parsed once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.base import EARLIEST, sane_time
from finetune_operator.core.digest import DIGEST_ANNOTATION
from finetune_operator.core.ownership import ROLE_LABEL, Controller, controller
from finetune_operator.kube.parsed import Parsed
from finetune_operator.kube.resources import FINE_TUNE_JOBS, JOBS, PODS, Object, Resource

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RUN_VOLUME = "run"
"""The volume with the Pod's run configuration."""
MODEL_KEY_VOLUME = "model-key-"
"""The prefix of the names of volumes with the key of one of the class's models; the model's name follows."""
OUR_CONTAINERS = frozenset({"trainer", "fetch", "server"})
"""The containers that count: a mesh or a policy may have added others to a Pod (job_outcome.py)."""
SANDBOX_CONTAINER = "python-sandbox"
"""Beside them, in which Python graders run. How it ends does not count: it is started again."""
_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
_JOB_LABEL = "batch.kubernetes.io/job-name"
_COMING = ("PodInitializing", "ContainerCreating")
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_OWN_EXCESS = re.compile(r"exceeds the (total )?limit|exceeded its local ephemeral storage limit")
"""Of the kubelet's three messages (pkg/kubelet/eviction: emptyDir, Pod and container)."""
LOST_POD_SECONDS = 180
"""A lost node's Pod stays Terminating forever. This long after its grace period nothing waits for it: what it still
writes goes into a folder of its own, and the next attempt's claim on the run locks it out."""
_EXIT_KILLED, _EXIT_TOLD_TO_STOP = 137, 143


@dataclass(frozen=True)
class PodView:
    """What matters of a Pod.

    `job_name` and `job_uid` are its controller's, a Job's or a ReplicaSet's; its own if it runs without a Job
    (runs_alone); empty for a Pod that was made by hand.
    `deletion_time` is the end of its grace period; `started_time` and `ended_time` are those of our own containers,
    and so are exit code and message. `foreign_failure`: how a container that is not ours failed, as a message.
    `foreign_running`: names of those that run. `waiting_foreign`: name of the one that `waiting_reason` is about, where
    none of ours waits. `run_config`: name of the ConfigMap that tells it what to do, which no Pod can change.
    `disk_exceeded`: what the kubelet says of a Pod that it evicted for filling more disk than its own limit.
    """

    name: str
    job_name: str
    role: str
    index: int
    phase: str
    exit_code: int | None
    message: str
    oom_killed: bool
    disrupted: bool
    waiting_reason: str
    waiting_message: str
    unschedulable_since: datetime | None
    unschedulable_message: str
    uid: str = ""
    job_uid: str = ""
    created: datetime | None = None
    scheduled_time: datetime | None = None
    started_time: datetime | None = None
    ended_time: datetime | None = None
    deletion_time: datetime | None = None
    disruption: str = ""
    """Why Kubernetes ended it, as `Reason: message`: of the condition DisruptionTarget, or of a failed Pod's status."""
    ready: bool = False
    foreign_failure: str = ""
    foreign_running: tuple[str, ...] = ()
    waiting_foreign: str = ""
    restarts: int = 0
    run_config: str = ""
    disk_exceeded: str = ""
    memory_limit: str = ""
    scheduling_gates: tuple[str, ...] = ()

    @property
    def is_terminal(self) -> bool:
        """Whether all of its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether it is being deleted."""
        return self.deletion_time is not None

    @property
    def orphaned(self) -> bool:
        """Whether its Job was deleted without it (--cascade=orphan): nothing stops it."""
        return not self.job_uid and bool(self.job_name)


@dataclass(frozen=True)
class JobView:
    """What matters of a Job, or of a Pod that runs without one (`resource`).

    `ending`: its outcome is certain, but its Pods have not ended yet. `reason`: why it failed. `digest`: see
    leftovers.is_outdated. `finalizers`: they keep it once it is deleted. `deadline`: when the operator ends
    it, where no Job controller does.
    """

    name: str
    namespace: str
    uid: str
    state: Literal["Active", "Complete", "Failed"]
    message: str
    created: datetime
    deleting: bool
    role: str
    suspended: bool = False
    start_time: datetime | None = None
    end_time: datetime | None = None
    ending: bool = False
    reason: str = ""
    queue_name: str | None = None
    parallelism: int = 1
    digest: str = ""
    finalizers: tuple[str, ...] = ()
    resource: Resource = JOBS
    deadline: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether it has Pods, or creates them."""
        return self.state == "Active" and not self.deleting

    @property
    def foreign_finalizers(self) -> tuple[str, ...]:
        """The finalizers that are not Kubernetes' own."""
        return tuple(name for name in self.finalizers if name not in (_FOREGROUND, _ORPHAN))

    @property
    def keeps_pods(self) -> bool:
        """Whether its Pods run on although it is deleted: the garbage collector waits for the Job to be gone."""
        return self.deleting and bool(self.foreign_finalizers) and _FOREGROUND not in self.finalizers


def has_started(job: JobView, pods: Sequence[PodView]) -> bool:
    """Whether our containers have started in all Pods of a Job, or it has ended.

    A Pod is Pending until all of its containers have started, also those that were injected.
    """
    if job.state != "Active" or job.ending or any(pod.is_terminal for pod in pods):
        return True
    return sum(pod.phase != "Pending" or pod.started_time is not None for pod in pods) >= job.parallelism


def pod_view(pod: Object) -> PodView:
    """Read a Pod object."""
    meta, status = pod["metadata"], pod.get("status", {})
    by = Controller(PODS.kind, meta["name"], meta.get("uid", "")) if runs_alone(pod) else controller(pod)
    every: list[dict[str, Any]] = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    # Where none has a name of ours, as in a Pod of another version, all of them count.
    ours = [container for container in every if container.get("name") in OUR_CONTAINERS] or every
    mains: list[dict[str, Any]] = status.get("containerStatuses", [])
    main = [container for container in mains if container in ours] or mains
    sandbox = [container for container in every if container.get("name") == SANDBOX_CONTAINER]
    foreign = [container for container in every if container not in ours and container not in sandbox]
    terminated = _first(ours, "terminated")
    waiting = _first([*ours, *sandbox], "waiting", skip=_COMING)
    strangers = [] if waiting else [one for one in foreign if _first([one], "waiting", skip=_COMING)]
    waiting = waiting or _first(strangers, "waiting", skip=_COMING)
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    disruption = conditions.get("DisruptionTarget", {})
    disk_exceeded = _disk_exceeded(status)
    disrupted = disruption.get("status") == "True" and not disk_exceeded
    return PodView(
        name=meta["name"],
        job_name=by.name if by is not None else meta.get("labels", {}).get(_JOB_LABEL, ""),
        job_uid=by.uid if by is not None else "",
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
        index=_index(meta.get("annotations", {}).get(_INDEX_ANNOTATION, "")),
        phase=status.get("phase", "Pending"),
        exit_code=terminated.get("exitCode"),
        message=terminated.get("message", "") or "",
        oom_killed=terminated.get("reason") == "OOMKilled",
        disrupted=disrupted,
        waiting_reason=waiting.get("reason", ""),
        restarts=max((container.get("restartCount", 0) for container in ours), default=0),
        waiting_message=waiting.get("message", "") or "",
        unschedulable_since=_time(scheduled, "lastTransitionTime") if unschedulable else None,
        unschedulable_message=scheduled.get("message", "") if unschedulable else "",
        uid=meta.get("uid", ""),
        created=_time(meta, "creationTimestamp"),
        scheduled_time=_time(scheduled, "lastTransitionTime") if scheduled.get("status") == "True" else None,
        started_time=_extreme(min, main, "startedAt"),
        ended_time=_extreme(max, main, "finishedAt"),
        deletion_time=_time(meta, "deletionTimestamp"),
        disruption=_reason_and_message(disruption)
        if disrupted
        else _reason_and_message(status)
        if status.get("phase") == "Failed"
        else "",
        ready=conditions.get("Ready", {}).get("status") == "True",
        foreign_failure=_foreign_failure(foreign),
        foreign_running=tuple(container["name"] for container in foreign if container.get("state", {}).get("running")),
        waiting_foreign=strangers[0]["name"] if strangers else "",
        run_config=_run_config(pod),
        disk_exceeded=disk_exceeded,
        memory_limit=_memory_limit(pod),
        scheduling_gates=tuple(one["name"] for one in pod.get("spec", {}).get("schedulingGates") or ()),
    )


def _memory_limit(pod: Object) -> str:
    """The memory limit of our main container."""
    found = [one for one in pod.get("spec", {}).get("containers", []) if one.get("name") in OUR_CONTAINERS]
    return str(found[0].get("resources", {}).get("limits", {}).get("memory", "")) if found else ""


def job_view(job: Object) -> JobView:
    """Read a Job object."""
    meta, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    true = {condition["type"]: condition for condition in status.get("conditions", []) if condition["status"] == "True"}
    state: Literal["Active", "Complete", "Failed"] = "Active"
    if "Complete" in true:
        state = "Complete"
    elif "Failed" in true:
        state = "Failed"
    failed = true.get("Failed") or true.get("FailureTarget") or {}
    return JobView(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta["uid"],
        state=state,
        message=true.get("Failed", {}).get("message", ""),
        created=parse_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
        suspended=bool(spec.get("suspend", False)),
        start_time=_time(status, "startTime"),
        end_time=_time(status, "completionTime") or _time(true.get("Failed", {}), "lastTransitionTime"),
        ending=state == "Active" and not true.keys().isdisjoint(("FailureTarget", "SuccessCriteriaMet")),
        reason=failed.get("reason", ""),
        queue_name=meta.get("labels", {}).get(QUEUE_LABEL),
        parallelism=spec.get("parallelism", 1),
        digest=meta.get("annotations", {}).get(DIGEST_ANNOTATION, ""),
        finalizers=tuple(meta.get("finalizers", ())),
    )


def runs_alone(pod: Object) -> bool:
    """Whether a Pod has no Job: a FineTuneJob is its controller itself."""
    by = controller(pod)
    return by is not None and by.kind == FINE_TUNE_JOBS.kind


def alone_view(pod: Object) -> JobView:
    """Read a Pod that runs without a Job as if it were one of a single Pod.

    Deleting it stops its containers, whatever finalizers it has. No finalizer keeps it until its end has been seen.
    """
    meta, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    states: dict[str, Literal["Active", "Complete", "Failed"]] = {"Succeeded": "Complete", "Failed": "Failed"}
    return JobView(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta["uid"],
        state=states.get(status.get("phase", ""), "Active"),
        message=status.get("message", "") or "",
        created=parse_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
        start_time=_time(status, "startTime"),
        reason=status.get("reason", "") or "",
        digest=meta.get("annotations", {}).get(DIGEST_ANNOTATION, ""),
        resource=PODS,
        deadline=_alone_deadline(meta, spec, status),
    )


def _alone_deadline(meta: Object, spec: Object, status: Object) -> datetime | None:
    """When the operator ends a Pod without a Job. It waits for a node, or in a queue, without a deadline.

    The kubelet counts from the Pod's start; one that does not start on its node, or whose node is gone, has to end too.
    """
    seconds = spec.get("activeDeadlineSeconds")
    scheduled: Object = next((one for one in status.get("conditions", []) if one.get("type") == "PodScheduled"), {})
    if seconds is None or scheduled.get("status") == "False":
        return None
    created = parse_time(meta["creationTimestamp"])
    return max(created, _time(scheduled, "lastTransitionTime") or created) + timedelta(seconds=seconds)


cached_pod_view, cached_job_view = Parsed(pod_view), Parsed(job_view)
"""The same of objects that are not modified: each is looked at on arrival, and again with all others of its owner."""


def lost_time(pod: PodView) -> datetime | None:
    """Until when a Pod that is being deleted is waited for; None for one that is not."""
    return None if pod.deletion_time is None else pod.deletion_time + timedelta(seconds=LOST_POD_SECONDS)


def is_lost(pod: PodView, now: datetime) -> bool:
    """Whether a Pod should have ended long ago, and has not."""
    until = lost_time(pod)
    return not pod.is_terminal and until is not None and now >= until


def status_written(parent: Object) -> datetime | None:
    """When the status of an object was written last, by the API server's clock."""
    entries = [one for one in parent["metadata"].get("managedFields", []) if one.get("subresource") == "status"]
    return max((parse_time(one["time"]) for one in entries if one.get("time")), default=None)


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp, which anybody may have written (sane_time)."""
    try:
        return sane_time(datetime.fromisoformat(text))
    except ValueError:  # Go accepts the year 0, Python does not.
        return EARLIEST


def _disk_exceeded(status: dict[str, Any]) -> str:
    """The message of an eviction for the Pod's own excess; one for the node's lack of disk reads differently."""
    message = status.get("message") or ""
    is_own = status.get("reason") == "Evicted" and _OWN_EXCESS.search(message) is not None
    return message.strip() if is_own else ""


def _run_config(pod: Object) -> str:
    volumes = pod.get("spec", {}).get("volumes", [])
    mounted = (volume.get("configMap", {}).get("name", "") for volume in volumes if volume.get("name") == RUN_VOLUME)
    return next(mounted, "")


def _index(text: str) -> int:
    """The completion index; 0 for anything else, since an annotation may contain any text."""
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0


def _foreign_failure(containers: Sequence[dict[str, Any]]) -> str:
    """How a container failed by itself: a sidecar that is being stopped may exit with any code."""
    for container in containers:
        ended = container.get("state", {}).get("terminated")
        if ended is not None and ended.get("exitCode", 0) not in (0, _EXIT_TOLD_TO_STOP, _EXIT_KILLED):
            how = f"ended with exit code {ended['exitCode']}. {(ended.get('message') or '').strip()}"
            return f"container {container['name']!r}, which was injected, {how}"
    return ""


def _reason_and_message(fields: dict[str, Any]) -> str:
    """Reason and message of a condition, or of a Pod that the kubelet refused or evicted."""
    return f"{fields['reason']}: {fields.get('message', '')}" if fields.get("reason") else ""


def _time(fields: dict[str, Any], name: str) -> datetime | None:
    text = fields.get(name)
    return parse_time(text) if text else None


def _first(containers: Sequence[dict[str, Any]], state: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The first state of this name with anything to report; of terminations, a failed one first."""
    found = [
        details
        for container in containers
        # A restarted container has its previous end in lastState.
        for details in (container.get("state", {}).get(state) or container.get("lastState", {}).get(state),)
        if details is not None and details.get("reason") not in skip
    ]
    found.sort(key=lambda details: details.get("exitCode", 1) == 0)
    return found[0] if found else {}


def _extreme(
    choose: Callable[[list[datetime]], datetime], containers: Sequence[dict[str, Any]], name: str
) -> datetime | None:
    """The first or last time of this name of all running and terminated containers."""
    found = [
        moment
        for container in containers
        for details in container.get("state", {}).values()
        if details is not None
        for moment in (_time(details, name),)
        if moment is not None
    ]
    return choose(found) if found else None
