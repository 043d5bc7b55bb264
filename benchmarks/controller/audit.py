"""The API server's audit log: who asked for what, when (to the microsecond), and what was answered."""

from __future__ import annotations

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
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"

READ_VERBS = frozenset({"get", "list", "watch"})

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Metadata", "users": [OPERATOR, BENCHMARK]},
        {
            "level": "Metadata",
            "users": [KWOK, SCHEDULER, JOB_CONTROLLER],
            "resources": [
                {"group": "", "resources": ["pods/binding", "pods/status"]},
                {"group": "batch", "resources": ["jobs/status"]},
            ],
        },
        {"level": "None"},
    ],
}

_CHILD = re.compile(r"(?P<owner>.+)-(?P<role>preflight|train)-[0-9a-f]{8}(-.+)?")


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

    def child_of(self) -> tuple[str, str] | None:
        """The FineTuneJob and the role of the Job or the Pod that this is about."""
        found = _CHILD.fullmatch(self.name)
        return (found["owner"], found["role"]) if found else None


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
    """When each thing happened to one FineTuneJob, in seconds since the epoch; None: not yet."""

    asked: float | None = None
    """The API server got the request to create it."""
    preflight_created: float | None = None
    preflight_bound: float | None = None
    preflight_exited: float | None = None
    """The Pod's container ended."""
    preflight_completed: float | None = None
    """The Job controller said so in the Job's status."""
    train_created: float | None = None
    train_running: float | None = None


def milestones(requests: Iterable[Request]) -> dict[str, Milestones]:
    """Of every FineTuneJob that the benchmark made, by name."""
    found: dict[str, Milestones] = {}
    for request in requests:
        if not 200 <= request.code < 300:
            continue
        if request.user == BENCHMARK and (request.verb, request.resource) == ("create", "finetunejobs"):
            found[request.name] = Milestones(asked=request.received)
            continue
        child = request.child_of()
        of = found.get(child[0]) if child else None
        if child is None or of is None:
            continue
        match child[1], request.user, request.resource:
            case "preflight", user, "jobs" if user == OPERATOR and request.verb == "create":
                of.preflight_created = of.preflight_created or request.answered
            case "preflight", user, "pods/binding" if user == SCHEDULER:
                of.preflight_bound = request.answered
            case "preflight", user, "pods/status" if user == KWOK:
                of.preflight_exited = request.answered
            case "preflight", user, "jobs/status" if user == JOB_CONTROLLER:
                of.preflight_completed = request.answered
            case "train", user, "jobs" if user == OPERATOR and request.verb == "create":
                of.train_created = of.train_created or request.answered
            case "train", user, "pods/status" if user == KWOK:
                of.train_running = request.answered
            case _:
                pass
    return found
