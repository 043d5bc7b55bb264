"""The Jobs, Pods and Events that belong to an object, found by the labels and names that the operator gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_view.fields import Fields, Object
from finetune_view.object_view import ObjectView
from finetune_view.resource import FINE_TUNE_JOB, JOB_INDEX, JOB_NAME_LABEL, OWNER_UID_LABEL, ROLE_LABEL

_STATES = ("waiting", "terminated", "running")


@dataclass(frozen=True)
class Pod:
    """A Pod of an object. `index` is its completion index in its Job, which is the node's number in a training."""

    fields: Fields

    @property
    def name(self) -> str:
        return self.fields.text("metadata", "name")

    @property
    def uid(self) -> str:
        return self.fields.text("metadata", "uid")

    @property
    def role(self) -> str:
        return self.fields.text("metadata", "labels", ROLE_LABEL)

    @property
    def job(self) -> str:
        """The name of its Job, or its own if it is a preflight without a Job; "" for a Pod of a Deployment."""
        labels = self.fields.at("metadata", "labels")
        return labels.text(JOB_NAME_LABEL) or labels.text("job-name") or (self.name if self.is_alone else "")

    @property
    def is_alone(self) -> bool:
        """Whether it runs without a Job."""
        return any(one.text("kind") == FINE_TUNE_JOB.name for one in self.fields.at("metadata", "ownerReferences"))

    @property
    def index(self) -> int:
        metadata = self.fields.at("metadata")
        text = metadata.text("labels", JOB_INDEX) or metadata.text("annotations", JOB_INDEX)
        return int(text) if text.isdecimal() else 0

    @property
    def created(self) -> datetime | None:
        return self.fields.time("metadata", "creationTimestamp")

    @property
    def state(self) -> str:
        """Why its container waits or ended, as kubectl shows it, or the Pod's phase."""
        if self.fields.at("metadata", "deletionTimestamp"):
            return "Terminating"
        for container in self.fields.at("status", "containerStatuses"):
            for state in _STATES[:2]:
                if reason := container.text("state", state, "reason"):
                    return reason
        return self.fields.text("status", "phase")

    @property
    def node(self) -> str:
        return self.fields.text("spec", "nodeName")

    @property
    def why_waiting(self) -> str:
        """The message of what keeps it from starting."""
        for container in self.fields.at("status", "containerStatuses"):
            if message := container.text("state", "waiting", "message"):
                return message
        for condition in self.fields.at("status", "conditions"):
            if condition.text("type") == "PodScheduled" and condition.text("status") == "False":
                return condition.text("message")
        return ""


def selector(view: ObjectView) -> str:
    """The labels of every child. Of one without a UID there can be none."""
    return f"{OWNER_UID_LABEL}={view.uid or 'none'}"


def sorted_pods(found: Iterable[Object]) -> list[Pod]:
    """Oldest Job first; within a Job by index."""
    pods = [Pod(Fields(item)) for item in found]
    began: dict[str, str] = {}
    for pod in pods:
        text = pod.fields.text("metadata", "creationTimestamp")
        began[pod.job] = min(began.get(pod.job, text), text)
    return sorted(pods, key=lambda pod: (began[pod.job], pod.job, pod.index, pod.name))


@dataclass(frozen=True)
class Event:
    """An Event about an object or one of its children."""

    fields: Fields

    @property
    def moment(self) -> datetime | None:
        """When it was last recorded."""
        paths = (("series", "lastObservedTime"), ("lastTimestamp",), ("eventTime",), ("firstTimestamp",))
        moments = [self.fields.time(*path) for path in paths]
        known = [moment for moment in moments if moment is not None]
        return known[0] if known else self.fields.time("metadata", "creationTimestamp")

    @property
    def timestamp(self) -> float:
        """The same, to sort by."""
        return self.moment.timestamp() if self.moment is not None else 0.0

    @property
    def type(self) -> str:
        return self.fields.text("type")

    @property
    def about(self) -> str:
        about = self.fields.at("involvedObject")
        return f"{about.text('kind')}/{about.text('name')}"

    @property
    def count(self) -> int:
        return max(self.fields.whole("series", "count") or 0, self.fields.whole("count") or 1)

    @property
    def text(self) -> str:
        """Reason and message."""
        return f"{self.fields.text('reason')}: {self.fields.text('message')}"

    @property
    def text_and_count(self) -> str:
        """The same, and how many times it was recorded if more than once."""
        return self.text if self.count < 2 else f"{self.text} (x{self.count})"

    def __str__(self) -> str:
        """As one line: when, of which type, about what, and what."""
        moment = self.moment.isoformat() if self.moment is not None else "?"
        return f"{moment} {self.type} {self.about} {self.text_and_count}"


def sorted_events(found: Iterable[Object], view: ObjectView, children: Sequence[Object] = ()) -> list[Event]:
    """Those Events among these that are about the object or its children, oldest first."""
    events = [Event(Fields(item)) for item in found]
    mine = [event for event in events if is_about(event, view, children)]
    return sorted(mine, key=lambda event: event.timestamp)


def is_about(event: Event, view: ObjectView, children: Sequence[Object] = ()) -> bool:
    """Whether an Event is about the object, a child that exists, or one whose Job's name its status still has."""
    about = event.fields.at("involvedObject")
    if about.text("uid") in {view.uid, *(Fields(child).text("metadata", "uid") for child in children)} - {""}:
        return True
    status = view.status
    jobs = [status.text("attempt", "jobName"), status.text("preflight", "jobName"), status.text("jobName")]
    kind, name = about.text("kind"), about.text("name")
    return kind in ("Job", "Pod") and any(job and (name == job or name.startswith(f"{job}-")) for job in jobs)
