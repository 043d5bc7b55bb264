"""What the kubelet is answered, and when."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer

from finetune_operator.runtime import health
from finetune_operator.runtime.leader_election import Election
from finetune_operator.runtime.sharding import Shard
from tests.unit.operator.fake_kube import FakeKube


@pytest.mark.parametrize(
    ("longest", "oldest", "told"),
    [
        (0, 0, []),
        (179, 179, []),
        (181, 0, ["a worker has been reconciling one object for 181 s"]),
        (0, 181, ["an object has waited for a worker for 181 s"]),
    ],
)
def test_workers_that_do_not_come_back(longest: float, oldest: float, told: list[str]) -> None:
    assert health.stuck(longest, oldest) == told


def test_a_watch_of_which_nothing_is_heard() -> None:
    assert health.silent({"finetunejobs": 179.0, "pods": 181.0}) == [
        "no response from the API server about pods for 181 s"
    ]


async def test_a_replica_that_stands_by_must_see_who_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    election = Election(FakeKube(), "finetune-system", Shard())
    monkeypatch.setattr(election, "silent_seconds", lambda: 9.0)
    assert health.unanswered(election) == []
    monkeypatch.setattr(election, "silent_seconds", lambda: 11.0)
    assert health.unanswered(election) == ["the API server has not said for 11 s who leads"]


async def test_problems_are_reported_line_by_line() -> None:
    alive: list[str] = []
    app = health.application(lambda: alive, lambda: ["the watches have not started"])
    async with TestClient(TestServer(app)) as client:
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        alive += ["first", "second"]
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (503, "first\nsecond\n")
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "the watches have not started\n")
