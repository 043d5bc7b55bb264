"""The Events that say why a Job creates no Pods, or why a Pod's containers are not created.

Only Events say so: a refused Pod leaves no object, and a Pod's status does not mention a volume that can't be mounted.
They are read only while something does not start, and at most one page for each object.

An Event outlives its cause. It counts only while its object has not started, no later Event shows progress by the
kubelet, and it was repeated within FRESH_SECONDS. The Job controller and the kubelet try again after at most one or two
minutes, but record what they repeat often only once in five minutes (client-go's EventSourceObjectSpamFilter);
FRESH_SECONDS adds one minute to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import JobView, PodView, parse_time

START_SECONDS = 10
"""Events are read only for objects that take longer to start: it is the API server's most expensive read."""
FRESH_SECONDS = 6 * 60
POD_NOT_CREATED = "FailedCreate"
VOLUME_FAILURES = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
SANDBOX_FAILED = "FailedCreatePodSandBox"
_TELLING = VOLUME_FAILURES | {POD_NOT_CREATED, SANDBOX_FAILED}
_GOT_FURTHER = frozenset({"Pulling", "Pulled", "Created", "Started"})


@dataclass(frozen=True)
class WarningEvent:
    """What a controller or a kubelet reported about the object with the UID `subject`; `since`: the first time."""

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
    """The newest warning among the Events of one object, if it still counts."""
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
