"""The Events that say why a Job creates no Pods, or why a Pod's containers are not created.

Nothing else does: a refused Pod leaves no object, and a volume that can't be mounted is not in a Pod's status.
Events are read only while something does not start, a page of each stuck object at most.

An Event outlives its cause, so it counts only while nothing shows that its cause is gone: its subject has not started,
no later Event says that the kubelet has got further, and it was repeated within FRESH_SECONDS. Job controller and
kubelet try again after at most one and two minutes, but record only one Event in five minutes of what they repeat
often (client-go's EventSourceObjectSpamFilter): that, and a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import JobView, PodView, parse_time

START_SECONDS = 10
"""Events are read only of what takes longer to start: of all reads this is the API server's most expensive one."""
FRESH_SECONDS = 6 * 60
POD_NOT_CREATED = "FailedCreate"
VOLUME_FAILURES = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
SANDBOX_FAILED = "FailedCreatePodSandBox"
_TELLING = VOLUME_FAILURES | {POD_NOT_CREATED, SANDBOX_FAILED}
_GOT_FURTHER = frozenset({"Pulling", "Pulled", "Created", "Started"})


@dataclass(frozen=True)
class WarningEvent:
    """What a controller or a kubelet reported about the object with this UID; `since`: when it did so first."""

    subject: str
    reason: str
    message: str
    since: datetime


def lacks_pods(job: JobView, pods: Iterable[PodView], now: datetime) -> bool:
    """Whether the Job should have created more Pods by now."""
    if job.state != "Active" or job.ending or job.deleting or job.suspended:
        return False
    made = sum(pod.job_uid == job.uid and not pod.terminating for pod in pods)
    return made < job.parallelism and now >= job.created + timedelta(seconds=START_SECONDS)


def current_warning(uid: str, events: Sequence[Object], now: datetime) -> WarningEvent | None:
    """The newest warning among the Events of one object, if it still holds."""
    dated = sorted(((_last_time(event), event) for event in events), key=lambda item: item[0])
    found: WarningEvent | None = None
    for last, event in dated:
        reason = event.get("reason", "")
        if reason in _GOT_FURTHER:
            found = None
        elif reason in _TELLING and now - last <= timedelta(seconds=FRESH_SECONDS):
            found = WarningEvent(uid, reason, event.get("message", "") or "", _first_time(event))
    return found


def _last_time(event: Object) -> datetime:
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return parse_time(text or event["metadata"]["creationTimestamp"])


def _first_time(event: Object) -> datetime:
    text = event.get("firstTimestamp") or event.get("eventTime")
    return parse_time(text or event["metadata"]["creationTimestamp"])
