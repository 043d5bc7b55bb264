"""The election where the namespaces are shared out, and while the number of shards changes."""

from __future__ import annotations

import asyncio
import random

import pytest

from finetune_operator.runtime import health
from finetune_operator.runtime.sharding import WHOLE, Shard
from tests.unit.operator.runtime.test_leader_election import Server, candidate, simulate


def test_each_shard_has_a_leader_of_its_own() -> None:
    async def scenario() -> None:
        server = Server()
        both = [candidate(server, shard=Shard(index, 2)) for index in range(2)]
        tasks = [asyncio.create_task(one.run()) for one in both]
        await asyncio.sleep(1)
        assert all(one.led == [0.0] for one in both)
        assert set(server.leases) == {"finetune-operator-shard-0-of-2", "finetune-operator-shard-1-of-2"}
        for task in tasks:
            task.cancel()

    simulate(scenario())


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3)])
def test_nobody_leads_a_new_shard_while_somebody_leads_an_old_one(before: int, after: int) -> None:
    """Also not after the old ones have died, until their Leases are over."""

    async def scenario() -> None:
        server = Server()
        old = [candidate(server, shard=Shard(index, before)) for index in range(before)]
        tasks = [asyncio.create_task(one.run()) for one in old]
        await asyncio.sleep(10)
        new = [candidate(server, shard=Shard(index, after)) for index in range(after)]
        waiting = [asyncio.create_task(one.run()) for one in new]
        await asyncio.sleep(60)
        assert not any(one.led for one in new)
        assert not any(health.unanswered(one.election) for one in new), "each can take over"
        for task in tasks[1:]:
            task.cancel()
        await asyncio.sleep(60)
        assert not any(one.led for one in new), "one of the old ones leads"
        tasks[0].cancel()
        died = asyncio.get_running_loop().time() - 1000
        await asyncio.sleep(30)
        assert all(15 - 2 <= one.led[0] - died <= 15 + 2.4 for one in new)
        for task in waiting:
            task.cancel()

    simulate(scenario())


def test_a_new_shard_leads_soon_after_the_old_one_has_let_go() -> None:
    async def scenario() -> None:
        server = Server()
        old, new = candidate(server), candidate(server, shard=Shard(1, 2))
        leading, waiting = asyncio.create_task(old.run()), asyncio.create_task(new.run())
        await asyncio.sleep(10)
        leading.cancel()
        await old.election.release()
        await asyncio.sleep(3)
        assert new.led and new.led[0] <= 10 + 2.4
        waiting.cancel()

    simulate(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_of_candidates_that_divide_the_namespaces_in_two_ways_those_of_one_lead(seed: int) -> None:
    """All at once, upon an API server that takes its time."""

    async def scenario() -> None:
        random.seed(seed)
        server = Server(slow=0.5)
        shards = [WHOLE, Shard(0, 2), Shard(1, 2)]
        candidates = [candidate(server, shard=shard) for shard in shards]
        tasks = [asyncio.create_task(one.run()) for one in candidates]
        for _ in range(600):
            await asyncio.sleep(0.2)
            leading = {shard.count for shard, one in zip(shards, candidates, strict=True) if one.led}
            assert len(leading) <= 1
        assert leading, "nobody leads after two minutes"
        for task in tasks:
            task.cancel()

    simulate(scenario())


def test_who_leads_after_slow_requests_has_the_whole_time_to_renew() -> None:
    """The list beside the Lease must not use up the time of the first renewal."""

    async def scenario() -> None:
        server = Server(slow=1.9)
        first = candidate(server)
        task = asyncio.create_task(first.run())
        await asyncio.sleep(40)
        assert first.led and not first.lost
        task.cancel()

    simulate(scenario())
