"""The election against a Lease with optimistic concurrency, on a clock that stands still while anything is to be done.

tests/integration/operator/resilience/test_high_availability.py has the real API server, and leaders that are killed.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object, Resource
from finetune_operator.runtime.leader_election import Election, LeadershipLostError, Timing
from finetune_operator.runtime.sharding import WHOLE, Shard

TIMING = Timing(lease=15, renew_deadline=10, retry=2)


class Clock(selectors.SelectSelector):
    """Time passes exactly when nothing is left to be done before then."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def simulate(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(asyncio.wait_for(scenario, 10_000))


@dataclass
class Server:
    """An API server with Leases."""

    leases: dict[str, Object] = field(default_factory=dict)
    version: int = 0
    failing: ApiError | None = None
    slow: float = 0.0
    writes: list[tuple[float, str]] = field(default_factory=list)
    """When, and who held the Lease then."""

    @property
    def lease(self) -> Object | None:
        """That of an operator without shards."""
        return self.leases.get(WHOLE.lease)

    def write(self, body: Object) -> Object:
        self.version += 1
        written = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self.leases[body["metadata"]["name"]] = written
        self.writes.append((asyncio.get_running_loop().time() - 1000, body["spec"]["holderIdentity"]))
        return written


class LeaseKube(Kube):
    def __init__(self, server: Server) -> None:
        super().__init__(api=None)
        self.server = server
        self.cut_off = False

    async def _reach(self) -> None:
        await asyncio.sleep(self.server.slow)
        if self.cut_off:
            raise ApiError(0, "ConnectionRefused", "cut off")
        if self.server.failing is not None:
            raise self.server.failing

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        await self._reach()
        return self.server.leases.get(name)

    async def list(self, *_: Any, **__: Any) -> list[Object]:
        await self._reach()
        return list(self.server.leases.values())

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        await self._reach()
        if body["metadata"]["name"] in self.server.leases:
            raise ApiError(409, "AlreadyExists", "exists")
        return self.server.write(body)

    async def replace(self, body: Object) -> Object:
        await self._reach()
        stored = self.server.leases[body["metadata"]["name"]]
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return self.server.write(body)


@dataclass
class Candidate:
    """A replica: it leads for as long as it can."""

    kube: LeaseKube
    election: Election
    led: list[float] = field(default_factory=list)
    lost: str = ""

    async def run(self) -> None:
        await self.election.acquire()
        self.led.append(asyncio.get_running_loop().time() - 1000)
        try:
            await self.election.hold()
        except LeadershipLostError as error:
            self.lost = str(error)
            self.led.append(asyncio.get_running_loop().time() - 1000)


def candidate(server: Server, identity: str | None = None, shard: Shard = WHOLE) -> Candidate:
    kube = LeaseKube(server)
    return Candidate(kube, Election(kube, "finetune-system", shard, identity, TIMING))


def test_the_first_leads_at_once_and_the_lease_says_so_as_client_go_writes_it() -> None:
    async def scenario() -> None:
        server = Server()
        first = candidate(server)
        await first.election.acquire()
        assert server.lease is not None
        spec = server.lease["spec"]
        assert spec["holderIdentity"] == first.election.identity
        assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (15, 0)
        assert spec["acquireTime"] == spec["renewTime"]
        assert first.election.leads

    simulate(scenario())


def test_a_leader_renews_and_nobody_else_leads() -> None:
    async def scenario() -> None:
        server = Server()
        first, second = candidate(server), candidate(server)
        tasks = [asyncio.create_task(one.run()) for one in (first, second)]
        await asyncio.sleep(3600)
        leading, standing_by = sorted((first, second), key=lambda one: not one.led)
        assert leading.election.leads and not standing_by.election.leads
        assert standing_by.led == []
        assert standing_by.election.holder == leading.election.identity
        assert standing_by.election.silent_seconds() <= 3
        assert {holder for _, holder in server.writes} == {leading.election.identity}
        assert 1600 < len(server.writes) < 1810, "every two seconds"
        assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 0
        for task in tasks:
            task.cancel()

    simulate(scenario())


@pytest.mark.parametrize("slow", [0.0, 1.0])
def test_after_a_death_the_other_takes_over_when_the_lease_is_over(slow: float) -> None:
    async def scenario() -> None:
        server = Server(slow=slow)
        first, second = candidate(server), candidate(server)
        dying = asyncio.create_task(first.run())
        await asyncio.sleep(30)
        waiting = asyncio.create_task(second.run())
        await asyncio.sleep(30)
        dying.cancel()
        died = asyncio.get_running_loop().time() - 1000
        await asyncio.sleep(40)
        (took_over,) = second.led
        requests = 7  # the last poll's list and read; then list, read, replacement, list, and the renewal's two
        assert 15 - 2 - 2 * slow <= took_over - died <= 15 + 2.4 + requests * slow
        assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 1
        waiting.cancel()

    simulate(scenario())


def test_a_leader_that_is_cut_off_stops_before_another_one_starts() -> None:
    async def scenario() -> None:
        server = Server()
        first, second = candidate(server), candidate(server)
        tasks = [asyncio.create_task(first.run())]
        await asyncio.sleep(5)
        tasks.append(asyncio.create_task(second.run()))
        await asyncio.sleep(60)
        first.kube.cut_off = True
        await asyncio.sleep(60)
        assert "not renewed for 10 s" in first.lost
        assert first.led[1] < second.led[0]
        assert not first.election.leads
        for task in tasks:
            task.cancel()

    simulate(scenario())


def test_an_api_server_that_hangs_counts_as_one_that_does_not_answer() -> None:
    async def scenario() -> None:
        server = Server()
        first = candidate(server)
        task = asyncio.create_task(first.run())
        await asyncio.sleep(61)
        last = server.writes[-1][0]
        server.slow = 600
        await asyncio.sleep(20)
        assert "not renewed" in first.lost
        assert first.led[1] - last <= 10.001
        await task

    simulate(scenario())


@pytest.mark.parametrize("failing", [ApiError(500, "InternalError", "etcd"), ApiError(429, "TooManyRequests", "")])
def test_a_short_disturbance_costs_no_leadership(failing: ApiError) -> None:
    async def scenario() -> None:
        server = Server()
        first = candidate(server)
        task = asyncio.create_task(first.run())
        await asyncio.sleep(60)
        server.failing = failing
        await asyncio.sleep(6)
        server.failing = None
        await asyncio.sleep(60)
        assert (first.lost, first.election.leads) == ("", True)
        task.cancel()

    simulate(scenario())


def test_a_leader_whose_lease_somebody_took_gives_up_at_once() -> None:
    async def scenario() -> None:
        server = Server()
        first = candidate(server)
        task = asyncio.create_task(first.run())
        await asyncio.sleep(60)
        assert server.lease is not None
        server.write({**server.lease, "spec": {**server.lease["spec"], "holderIdentity": "somebody"}})
        await asyncio.sleep(3)
        assert "somebody holds the Lease" in first.lost
        await task

    simulate(scenario())


def test_a_leader_that_ends_well_lets_the_next_one_lead_at_once() -> None:
    async def scenario() -> None:
        server = Server()
        first, second = candidate(server), candidate(server)
        await first.election.acquire()
        waiting = asyncio.create_task(second.run())
        await asyncio.sleep(60 / 5)
        await first.election.release()
        assert not first.election.leads
        released = asyncio.get_running_loop().time() - 1000
        await asyncio.sleep(5)
        assert second.led and second.led[0] - released <= 2.4
        waiting.cancel()

    simulate(scenario())


def test_so_does_one_that_ends_in_the_middle_of_a_renewal() -> None:
    """The API server renewed the Lease, and nobody heard its answer."""

    async def scenario() -> None:
        server = Server()
        first = candidate(server)
        await first.election.acquire()
        assert server.lease is not None
        server.write(server.lease)
        await first.election.release()
        assert server.lease["spec"]["holderIdentity"] == ""

    simulate(scenario())


def test_only_who_leads_releases_and_a_release_that_fails_is_no_error() -> None:
    async def scenario() -> None:
        server = Server()
        first, second = candidate(server), candidate(server)
        await second.election.release()
        await first.election.acquire()
        writes = len(server.writes)
        await second.election.release()
        assert len(server.writes) == writes
        server.slow = 600
        await first.election.release()

    simulate(scenario())


def test_of_two_that_find_the_lease_free_one_wins() -> None:
    async def scenario() -> None:
        for free in (None, "released"):
            server = Server(slow=0.5)
            if free:
                server.leases["finetune-operator"] = {
                    "metadata": {"name": "finetune-operator", "resourceVersion": "7"},
                    "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 4},
                }
            candidates = [candidate(server) for _ in range(3)]
            tasks = [asyncio.create_task(one.run()) for one in candidates]
            await asyncio.sleep(30)
            assert sum(bool(one.led) for one in candidates) == 1
            assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == (5 if free else 0)
            for task in tasks:
                task.cancel()

    simulate(scenario())


def test_a_container_that_starts_again_in_its_pod_goes_on_at_once() -> None:
    async def scenario() -> None:
        server = Server()
        first, second = candidate(server, "pod-1"), candidate(server, "pod-2")
        dying = asyncio.create_task(first.run())
        await asyncio.sleep(60)
        waiting = asyncio.create_task(second.run())
        dying.cancel()
        await asyncio.sleep(3)
        again = candidate(server, "pod-1")
        running = asyncio.create_task(again.run())
        await asyncio.sleep(60)
        assert (again.led, second.led) == ([63.0], [])
        assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 0
        for task in (waiting, running):
            task.cancel()

    simulate(scenario())
