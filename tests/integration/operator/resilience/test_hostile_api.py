"""Kubernetes is hostile: whatever lies between the operator and the API server, the job's life ends as undisturbed.

The process may end (Kopf does when a list or watch is refused for good); it is started again, as the kubelet would.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from tests.integration.operator.api import COLLECTED_SECONDS, wait_for
from tests.integration.operator.api_proxy import (
    Answer,
    CutWatch,
    Fault,
    Intercept,
    Late,
    LoseAnswer,
    Request,
    Reset,
    SilentWatch,
)
from tests.integration.operator.jobs import JOB
from tests.integration.operator.lives import NAME, Life, Portrait, Stage, side_by_side

SHORT_TIMEOUT_SECONDS = 2.0
EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
GONE = json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n"
_NAMED = re.compile(r"/namespaces/[^/]+/([a-z]+)/[^/]+")


class FirstOfEachKind:
    """Spoils the first request of every verb and resource; what is tried again goes through."""

    def __init__(self, fault: Fault, which: Callable[[Request], bool]) -> None:
        self._fault = fault
        self._which = which
        self._seen: set[str] = set()

    def __call__(self, request: Request) -> Fault | None:
        kind = _NAMED.sub(r"/\1", request.line)
        if not self._which(request) or kind in self._seen:
            return None
        self._seen.add(kind)
        return self._fault


class NowAndThen:
    """Spoils one request in six, but never the same one twice in a row."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._random = random.Random(6)
        self._spoiled: set[str] = set()

    def __call__(self, request: Request) -> Fault | None:
        if request.is_watch:
            return None
        if request.line in self._spoiled:
            self._spoiled.remove(request.line)
        elif self._random.random() < 1 / 6:
            self._spoiled.add(request.line)
            return self._fault
        return None


class Every:
    """Spoils every n-th request of those that are meant, however often it is tried again."""

    def __init__(self, number: int, fault: Fault, which: Callable[[Request], bool]) -> None:
        self._number = number
        self._fault = fault
        self._which = which
        self._count = itertools.count(1)

    def __call__(self, request: Request) -> Fault | None:
        return self._fault if self._which(request) and next(self._count) % self._number == 0 else None


def any_request(request: Request) -> bool:
    return not request.is_watch


def any_write(request: Request) -> bool:
    return request.is_write


def any_watch(request: Request) -> bool:
    return request.is_watch


def status_write(request: Request) -> bool:
    return request.is_write and request.path.endswith("/status")


def silent(request: Request, plural: str) -> Fault | None:
    return SilentWatch() if request.is_watch and request.path.endswith(f"/{plural}") else None


def next_page(request: Request) -> bool:
    return "continue" in request.query


@dataclass(frozen=True)
class Hostility:
    """What is done to the operator's requests; a fresh one for each life."""

    spoil: Callable[[], Intercept]
    request_timeout_seconds: float = 30.0
    page_size: int | None = None


HOSTILITIES = {
    "watches close at once": Hostility(lambda: lambda request: CutWatch(0) if request.is_watch else None),
    "watches close after a moment": Hostility(lambda: lambda request: CutWatch(0.7) if request.is_watch else None),
    "watches break off": Hostility(lambda: Every(3, Reset(), any_watch)),
    "watches say 410": Hostility(lambda: lambda request: CutWatch(0.5, GONE) if request.is_watch else None),
    "watches are refused with 410": Hostility(lambda: Every(10, Answer(410, "Expired"), any_watch)),
    "lists expire between two pages": Hostility(lambda: Every(2, Answer(410, "Expired"), next_page), page_size=2),
    "409 on every second status": Hostility(lambda: Every(2, Answer(409, "Conflict"), status_write)),
    "429 with Retry-After": Hostility(
        lambda: FirstOfEachKind(Answer(429, "TooManyRequests", {"Retry-After": "1"}), any_request)
    ),
    "429 without": Hostility(lambda: FirstOfEachKind(Answer(429, "TooManyRequests"), any_request)),
    "500 now and then": Hostility(lambda: NowAndThen(Answer(500, "InternalError"))),
    "503 for watches": Hostility(lambda: Every(2, Answer(503, "ServiceUnavailable"), any_watch)),
    "the watch of Pods is open and silent": Hostility(lambda: lambda request: silent(request, "pods")),
    "connections break before": Hostility(lambda: NowAndThen(Reset())),
    "connections break after": Hostility(lambda: NowAndThen(LoseAnswer())),
}
SLOWER_THAN_THE_TIMEOUT = Hostility(
    lambda: FirstOfEachKind(Late(SHORT_TIMEOUT_SECONDS * 2), any_write), request_timeout_seconds=SHORT_TIMEOUT_SECONDS
)
"""Its short timeout holds for reads as well, which are late while a dozen lives are lived at once."""


def with_hostility(stage: Stage, number: int, hostility: Hostility) -> Portrait:
    with stage.life(f"hostile-{number}", request_timeout_seconds=hostility.request_timeout_seconds) as life:
        life.lane.page_size = hostility.page_size
        life.lane.intercept = hostility.spoil()
        return life.live()


class Replaced:
    """The job is deleted and made again under its name, just before the operator's n-th write about it."""

    def __init__(self, life: Life, number: int) -> None:
        self._life = life
        self._left = number
        self.uids: list[str] = []

    def __call__(self, request: Request) -> Fault | None:
        if request.is_write and not self.uids:
            self._left -= 1
            if self._left == 0:
                api = self._life.api
                self.uids.append(api.get("FineTuneJob", NAME)["metadata"]["uid"])
                api.delete("FineTuneJob", NAME)
                self.uids.append(api.create("FineTuneJob", NAME, {**JOB, "className": "cpu"})["metadata"]["uid"])
        return None


def with_a_successor(stage: Stage, number: int) -> Portrait:
    with stage.life(f"replaced-{number}") as life:
        life.lane.intercept = replaced = Replaced(life, number)
        portrait = life.live()
        first, second = replaced.uids
        assert life.job["metadata"]["uid"] == second
        gone = "what the operator still made for the deleted job is collected"
        wait_for(lambda: not any(life.api.children(first).values()), gone, COLLECTED_SECONDS)
        return portrait


@pytest.mark.timeout(600)
def test_whatever_the_api_server_does_the_life_ends_as_undisturbed(quiet_stage: Stage) -> None:
    """Takes a minute or more: two dozen whole lives side by side, most of which wait for what is tried again."""
    with quiet_stage.life("calm") as life:
        calm = life.live()
    tasks: dict[str, Callable[[], Portrait]] = {
        name: partial(with_hostility, quiet_stage, number, hostility)
        for number, (name, hostility) in enumerate(HOSTILITIES.items())
    }
    tasks |= {
        f"replaced before write {number}": partial(with_a_successor, quiet_stage, number) for number in range(1, 10)
    }
    alone = {"slower than the timeout": partial(with_hostility, quiet_stage, len(HOSTILITIES), SLOWER_THAN_THE_TIMEOUT)}
    wrong = []
    for name, result in (side_by_side(alone) | side_by_side(tasks)).items():
        if isinstance(result, Exception):
            wrong.append(f"{name}: {result}")
        elif difference := calm.differences(result):
            wrong.append(f"{name}:\n{difference}")
    assert not wrong, f"{len(wrong)} of {len(alone) + len(tasks)}:\n" + "\n".join(wrong)
