"""The API server's audit log: who asked for what, when (to the microsecond), and what was answered."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

OPERATOR = "system:serviceaccount:finetune-system:finetune-operator"
BENCHMARK = "benchmark"
KWOK = "kwok"
SCHEDULER = "system:kube-scheduler"
TRAINER = "system:serviceaccount:kubeflow-system:kubeflow-trainer-controller-manager"
JOBSET = "system:serviceaccount:jobset-system:jobset-controller-manager"

READ_VERBS = frozenset({"get", "list", "watch"})
CREATED = 201

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Metadata", "users": [OPERATOR, TRAINER, JOBSET, BENCHMARK]},
        {
            "level": "Metadata",
            "users": [KWOK, SCHEDULER],
            "resources": [{"group": "", "resources": ["pods/binding", "pods/status"]}],
        },
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Family:
    """How a product's jobs and what is made for them are known in the log.

    The names of the first child, of the training Job and of their Pods tell the job (group `owner`).
    """

    users: frozenset[str]
    jobs: str
    first_child: str
    """Its resource."""
    first_name: re.Pattern[str]
    train_name: re.Pattern[str]

    def child(self, name: str) -> tuple[str, Role] | None:
        """The job and the role of the child, or of the Pod, of this name."""
        for pattern, role in ((self.train_name, Role.TRAIN), (self.first_name, Role.FIRST)):
            if found := pattern.fullmatch(name):
                return found["owner"], role
        return None


class Role(enum.Enum):
    """What a child is for."""

    FIRST = enum.auto()
    TRAIN = enum.auto()


OURS = Family(
    users=frozenset({OPERATOR}),
    jobs="finetunejobs",
    first_child="pods",
    first_name=re.compile(r"(?P<owner>.+)-preflight-[0-9a-f]{8}"),
    train_name=re.compile(r"(?P<owner>.+)-train-[0-9a-f]{8}(-.+)?"),
)
KUBEFLOW = Family(
    users=frozenset({TRAINER, JOBSET}),
    jobs="trainjobs",
    first_child="jobsets",
    first_name=re.compile(r"(?P<owner>.+)"),
    train_name=re.compile(r"(?P<owner>.+)-node-0(-.+)?"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was answered. `received` and `answered` are seconds since the epoch."""

    user: str
    verb: str
    resource: str
    """With the subresource, as in `pods/status`."""
    name: str
    code: int
    received: float
    answered: float

    @property
    def is_write(self) -> bool:
        return self.verb not in READ_VERBS

    @property
    def creates(self) -> bool:
        """Whether it may have made its object: a POST, or a server-side apply."""
        return self.verb == "create" or (self.verb == "patch" and self.code == CREATED)


def parse(line: str) -> Request:
    """One line of the log, of an audit.k8s.io/v1 Event at level Metadata."""
    event = json.loads(line)
    target = event.get("objectRef", {})
    resource, subresource = target.get("resource", ""), target.get("subresource")
    return Request(
        user=event["user"]["username"],
        verb=event["verb"],
        resource=f"{resource}/{subresource}" if subresource else resource,
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        received=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        answered=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
    )


class AuditLog:
    """The log of a running API server; `requests` holds all that `read` has found so far."""

    def __init__(self, path: Path) -> None:
        self.requests: list[Request] = []
        self._path = path
        self._offset = 0

    def read(self) -> list[Request]:
        """Take in what was logged since the last time; returns only that."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            content = log.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = [parse(line) for line in whole.decode().splitlines()]
        self.requests += new
        return new


@dataclass
class Milestones:
    """When each thing happened to one job, in seconds since the epoch; None: not yet, or never."""

    asked: float | None = None
    """The API server got the request to create it."""
    child_created: float | None = None
    """Its first child: our preflight Pod, the rival's JobSet."""
    child_bound: float | None = None
    child_exited: float | None = None
    """The container of the child, or of its Pod, ended."""
    train_created: float | None = None
    train_running: float | None = None


def milestones(requests: Iterable[Request], family: Family) -> dict[str, Milestones]:
    """Of every job that the benchmark made, by name.

    The log has a request when it was answered: a child may stand before the job that it was made for.
    """
    found: dict[str, Milestones] = {}
    for request in sorted(requests, key=lambda one: one.received):
        if not 200 <= request.code < 300:
            continue
        if request.user == BENCHMARK and (request.verb, request.resource) == ("create", family.jobs):
            found[request.name] = Milestones(asked=request.received)
            continue
        child = family.child(request.name)
        of = found.get(child[0]) if child else None
        if child is None or of is None:
            continue
        made = request.user in family.users and request.creates
        match child[1], request.user, request.resource:
            case Role.FIRST, _, family.first_child if made:
                of.child_created = of.child_created or request.answered
            case Role.FIRST, user, "pods/binding" if user == SCHEDULER:
                of.child_bound = request.answered
            case Role.FIRST, user, "pods/status" if user == KWOK:
                of.child_exited = request.answered
            case Role.TRAIN, _, "jobs" if made:
                of.train_created = of.train_created or request.answered
            case Role.TRAIN, user, "pods/status" if user == KWOK:
                of.train_running = request.answered
            case _:
                pass
    return found
