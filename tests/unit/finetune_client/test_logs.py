"""A followed log: from Pod to Pod until the run has ended, whatever happens to the streams in between.

The connection is scripted: only a kubelet has logs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from finetune_client.aio.logs import followed_lines, log_lines
from finetune_client.errors import ApiError, InvalidSpecError, NoResultError
from finetune_client.kinds import FINE_TUNE_JOBS
from finetune_view.fields import Object
from finetune_view.log_choice import Wanted
from tests.unit.kubectl_finetune.cluster_objects import FAILED, SUCCEEDED, TRAINING, job, pod, seen

NO_ANSWER = ApiError(0, "NoAnswer", "The connection broke.")
NOT_STARTED = InvalidSpecError(400, "BadRequest", 'container "trainer" is waiting to start: ContainerCreating.')
PREFLIGHT = pod("router-preflight-9", role="preflight", seconds=900)
TRAIN = pod("router-train-1", seconds=500)


def line(second: int, text: str) -> bytes:
    return f"2026-11-27T15:00:{second:02}.5Z {text}".encode()


class Script:
    """A connection that answers with what is next; the last state of the object and its Pods stays."""

    def __init__(
        self, states: list[tuple[Object, list[Object]]], logs: dict[str, list[list[bytes | ApiError]]]
    ) -> None:
        self._states, self._logs = states, logs
        self.queries: list[Mapping[str, str]] = []

    async def send(self, method: str, path: str, query: Any = None, *_: Any) -> Object:
        if path.endswith("/pods"):
            return {"items": self._states[0][1]}
        if "/pods/" in path:
            name = path.rpartition("/")[2]
            (found,) = [one for one in self._states[0][1] if one["metadata"]["name"] == name]
            ended = not self._logs[name]
            return {**found, "status": {"phase": "Succeeded" if ended else "Running"}}
        if len(self._states) > 1 and not any(self._logs[one["metadata"]["name"]] for one in self._states[0][1]):
            self._states.pop(0)
        return self._states[0][0]

    async def lines(self, path: str, query: Mapping[str, str], *_: Any) -> AsyncGenerator[bytes]:
        self.queries.append(query)
        for one in self._logs[path.split("/")[-2]].pop(0):
            if isinstance(one, ApiError):
                raise one
            yield one

    async def sleep(self, seconds: float) -> None:
        pass


async def followed(script: Script) -> list[str]:
    found = followed_lines(script, FINE_TUNE_JOBS, seen(TRAINING), Wanted(), time.monotonic() + 60)  # type: ignore[arg-type]
    return [text async for text in found]


def named(one: Object) -> str:
    return str(one["metadata"]["name"])


async def test_it_goes_on_with_the_next_pod_and_ends_with_the_run() -> None:
    script = Script(
        [(job(TRAINING), [PREFLIGHT]), (job(TRAINING), [PREFLIGHT, TRAIN]), (job(SUCCEEDED), [PREFLIGHT, TRAIN])],
        {named(PREFLIGHT): [[line(1, "checked")]], named(TRAIN): [[line(2, "step 1"), line(3, "done")]]},
    )
    assert await followed(script) == ["checked", "step 1", "done"]


async def test_a_stream_that_breaks_loses_no_line_and_repeats_none() -> None:
    streams: list[list[bytes | ApiError]] = [
        [NOT_STARTED],
        [line(1, "one"), line(2, "two"), NO_ANSWER],
        [NO_ANSWER],
        [line(2, "two"), line(3, "three")],
        [line(3, "three"), line(4, "four")],
    ]
    script = Script([(job(TRAINING), [TRAIN]), (job(SUCCEEDED), [TRAIN])], {named(TRAIN): streams})
    assert await followed(script) == ["one", "two", "three", "four"]
    assert [query.get("sinceTime", "")[-3:] for query in script.queries] == ["", "", "02Z", "02Z", "03Z"]


async def test_the_log_of_the_server_follows_that_of_what_fetches_its_model() -> None:
    """The kubelet's times of the two overlap."""

    def state(status: Object, fetch: Object) -> tuple[Object, list[Object]]:
        served = pod("chat", role="train", seconds=500)
        served["spec"] = {"containers": [{"name": "server"}]}
        served["status"] = {"phase": "Running", "initContainerStatuses": [{"name": "fetch", "state": fetch}]}
        return job(status), [served]

    class Fetching(Script):
        async def lines(self, path: str, query: Mapping[str, str], *more: Any) -> AsyncGenerator[bytes]:
            async for one in super().lines(path, query, *more):
                yield one
            self._states = [state(SUCCEEDED, {"terminated": {"exitCode": 0}})]

    logs: dict[str, list[list[bytes | ApiError]]] = {"chat-0-abcde": [[line(3, "copied")], [line(2, "listening")]]}
    script = Fetching([state(TRAINING, {"running": {}})], logs)
    found = followed_lines(script, FINE_TUNE_JOBS, seen(TRAINING), Wanted(), time.monotonic() + 5)  # type: ignore[arg-type]
    assert [text async for text in found] == ["copied", "listening"]
    assert [query["container"] for query in script.queries] == ["fetch", "server"]


async def test_a_container_that_has_not_started_has_no_log_yet() -> None:
    script = Script([(job(TRAINING), [TRAIN])], {named(TRAIN): [[NOT_STARTED]]})
    with pytest.raises(NoResultError, match=r"waiting to start.*job\.events\(\) says why"):
        _ = [text async for text in log_lines(script, seen(TRAINING), Wanted(), None)]  # type: ignore[arg-type]


async def test_what_the_status_has_kept_is_shown_when_the_pods_are_gone() -> None:
    script = Script([(job(FAILED), [])], {})
    found = [text async for text in log_lines(script, seen(FAILED), Wanted(), 2)]  # type: ignore[arg-type]
    assert found == ["line 29", "line 30"]
    with pytest.raises(NoResultError, match="has no train Pods"):
        _ = [text async for text in log_lines(script, seen(TRAINING), Wanted(), None)]  # type: ignore[arg-type]
