"""A canary on the real API server, with real gateways that split and count; only the kubelet is played."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, namespace
from tests.integration.operator.canaries.gateways import Client, GatewayProcess, Servers, servers
from tests.integration.operator.lives import Stage
from tests.integration.operator.process import OperatorProcess

ONE, TWO, THREE = ("s3://models/one", "s3://models/two", "s3://models/three")
CHECKS = [{"metric": "ErrorRate", "maximumIncreasePercent": 20}]
WAIT_SECONDS = 60.0


@pytest.fixture
def operator(quiet_stage: Stage, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One of this test's own, which it may kill."""
    process = OperatorProcess(quiet_stage.plane, tmp_path)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def api(quiet_stage: Stage) -> Iterator[Api]:
    with namespace(quiet_stage.plane) as api:
        yield api


@dataclass
class Deployed:
    """A model that serves behind a gateway, and the next one beside it."""

    api: Api
    deployment: Object
    servers: Servers
    gateway: GatewayProcess
    client: Client

    def status(self) -> Object:
        found: Object = self.api.get("ModelDeployment", "router")["status"]
        return found

    def canary(self) -> Object:
        return self.status().get("canary") or {}

    async def until(self, what: str, true: Any, asks: int = 0) -> None:
        """Play the kubelet, with so many requests between two looks, until the status is as wanted."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not true(self.status()):
            assert time.monotonic() < deadline, f"not {what}: {self.status()}"
            await asyncio.to_thread(self.play)
            await self.client.ask(asks)
            await asyncio.sleep(0.2)

    def play(self) -> None:
        for role in ("serve", "canary", "gateway"):
            for pod in self.api.children_of(self.deployment, role, "Pod"):
                with contextlib.suppress(RefusedError):  # It has gone.
                    played.ready(self.api, pod)

    async def analysing(self, step: int = 1) -> None:
        await self.until(
            f"analysing step {step}",
            lambda status: (
                (status.get("canary") or {}).get("phase") == "Analysing" and status["canary"]["step"] == step
            ),
        )
        split = self.canary()["split"]
        before = self.client.of("canary")
        deadline = time.monotonic() + WAIT_SECONDS
        while self.client.of("canary") == before:  # the gateway has heard of it
            assert time.monotonic() < deadline, "no request reached the canary"
            await self.client.ask(1)
        assert self.canary().get("split", split) == split

    def counted(self) -> int:
        canary = self.canary()
        return int(canary["stable"]["requests"] + canary["canary"]["requests"])


@contextlib.asynccontextmanager
async def deployed(api: Api, folder: Path, **canary: Any) -> AsyncIterator[Deployed]:
    """The first model serves behind one gateway; the second is asked for."""
    rollout = {"type": "Canary", "canary": {"checks": CHECKS, "rollbackWindowSeconds": 3600, **canary}}
    spec = {"className": "cpu", "model": {"uri": ONE}, "gateway": {"replicas": 1}, "rollout": rollout}
    deployment = await asyncio.to_thread(api.create, "ModelDeployment", "router", spec)
    async with servers() as both, ClientSession() as session:
        for role in ("serve", "gateway"):
            (pod,) = await asyncio.to_thread(api.wait_children, deployment, role, "Pod")
            await asyncio.to_thread(played.ready, api, pod)
        await asyncio.to_thread(api.wait_reason, "ModelDeployment", "router", "Available")
        gateway = GatewayProcess(api, pod, both.port, folder)
        await gateway.start()
        try:
            found = Deployed(api, deployment, both, gateway, Client(gateway, session))
            await found.client.ask(20)
            assert found.client.of("stable") == 20, "there is no canary yet"
            api.patch("ModelDeployment", "router", {"spec": {"model": {"uri": TWO}}})
            yield found
        finally:
            gateway.kill()


async def test_a_model_that_is_no_worse_replaces_what_serves_without_a_failed_request(
    api: Api, operator: OperatorProcess, tmp_path: Path
) -> None:
    steps = [{"percent": 30, "minimumRequests": 30}, {"percent": 60, "minimumRequests": 30}]
    async with deployed(api, tmp_path, steps=steps) as found:
        await found.analysing()
        assert condition(found.api.get("ModelDeployment", "router"), "Ready")["status"] == "True", "the first serves"
        assert found.status()["applied"]["uri"] == ONE
        before = found.client.of("stable"), found.client.of("canary")
        await found.client.ask(20, session_id="alice")
        moved = found.client.of("stable") - before[0], found.client.of("canary") - before[1]
        assert sorted(moved) == [0, 20], "a session stays on one side"
        await found.until("in step 2", lambda status: (status.get("canary") or {}).get("step") == 2, asks=10)
        await found.until("promoted", lambda status: status["applied"]["uri"] == TWO, asks=10)
        await found.until("over", lambda status: "canary" not in status, asks=1)
        assert set(found.client.answers) == {("stable", 200), ("canary", 200)}
        assert [one["revision"] for one in found.status()["history"]] == [TWO, ONE]
        assert not api.children_of(found.deployment, "canary", "Deployment")
        told = Counter(one["reason"] for one in api.items("Event") if one["involvedObject"]["name"] == "router")
        assert [told[reason] for reason in ("CanaryStarted", "CanaryShareChanged", "CanaryPassed")] == [1, 2, 1]
        assert told["RolledBack"] == 0

        await found.until("rolled out", lambda status: status["phase"] == "Available", asks=1)
        api.patch("ModelDeployment", "router", {"spec": {"model": {"uri": ONE}}})
        await found.until("back", lambda status: status["applied"]["uri"] == ONE)
        assert "canary" not in found.status(), "it served until a moment ago"

        await found.until("rolled out", lambda status: status["phase"] == "Available", asks=1)
        api.patch("ModelDeployment", "router", {"spec": {"rollout": {"rollbackTo": TWO}}})
        await found.until("undone", lambda status: status["applied"]["uri"] == TWO)
        await found.until("rolled out", lambda status: status["phase"] == "Available", asks=1)
        api.patch("ModelDeployment", "router", {"spec": {"rollout": {"rollbackTo": None}}})
        assert (
            "undid that" in condition(api.wait_reason("ModelDeployment", "router", "RolledBack"), "Stalled")["message"]
        )
        assert found.status()["applied"]["uri"] == TWO, "what was undone is not tried again"


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ({"metric": "OutputTokensMean", "maximumRatio": 1.5}, {"tokens": 20}),
        ({"metric": "TimeToFirstTokenP95", "maximumRatio": 2}, {"first_seconds": 0.5}),
    ],
    ids=["long answers", "slow answers"],
)
async def test_a_model_that_answers_worse_without_an_error_is_rolled_back_by_its_check(
    api: Api, operator: OperatorProcess, tmp_path: Path, check: Object, fault: dict[str, Any]
) -> None:
    async with deployed(api, tmp_path, steps=[{"percent": 20, "minimumRequests": 1000}], checks=[check]) as found:
        for name, value in fault.items():
            setattr(found.servers, name, value)
        await found.until("rolled back", lambda status: "aborted" in status, asks=20)
        message = found.status()["aborted"][0]["message"]
        assert message.startswith(f"{check['metric']} was ")
        assert f"{check['maximumRatio']} allowed" in message
        assert all(code == 200 for _, code in found.client.answers)


async def test_a_model_that_fails_is_rolled_back_and_not_tried_again(
    api: Api, operator: OperatorProcess, tmp_path: Path
) -> None:
    async with deployed(api, tmp_path, steps=[{"percent": 50, "minimumRequests": 1000}]) as found:
        found.servers.failing = 0.9
        await found.until("rolled back", lambda status: "aborted" in status, asks=4)
        tripped = time.monotonic()
        ended = api.wait_reason("ModelDeployment", "router", "RolledBack")
        assert condition(ended, "Stalled")["status"] == "True"
        assert "requests failed" in ended["status"]["aborted"][0]["message"]
        assert condition(ended, "Ready")["status"] == "True", "what served goes on"
        await asyncio.sleep(max(0.0, tripped + 10 - time.monotonic()))
        before = found.client.of("canary")
        await found.client.ask(40)
        assert found.client.of("canary") == before, "ten seconds later, it gets nothing"
        await found.until("over", lambda status: "canary" not in status)
        assert not api.children_of(found.deployment, "canary", "Deployment")
        assert found.status()["applied"]["uri"] == ONE

        api.patch("ModelDeployment", "router", {"spec": {"replicas": 2}})
        await found.until("scaled", lambda status: status["readyReplicas"] == 2)
        assert "canary" not in found.status(), "the same model, asked for in the same way"
        found.servers.failing = 0.0
        api.patch("ModelDeployment", "router", {"spec": {"model": {"uri": THREE}}})
        await found.analysing()
        assert found.canary()["revision"] == THREE


async def test_each_request_is_counted_once_whoever_is_killed(
    api: Api, operator: OperatorProcess, tmp_path: Path
) -> None:
    async with deployed(api, tmp_path, steps=[{"percent": 50, "minimumRequests": 1000}]) as found:
        await found.analysing()
        await found.until("counted", lambda _: found.counted() > 0)
        at_first = found.counted()
        await found.client.ask(40)
        operator.kill()
        await found.client.ask(30)
        assert found.client.of("canary") > 10, "the split stays while there is no operator"
        operator.start()
        await found.until("counted", lambda _: found.counted() >= at_first + 70)
        assert found.counted() == at_first + 70
        assert found.canary()["step"] == 1

        found.gateway.kill()
        await found.gateway.start()
        before = found.client.of("canary")
        while found.client.of("canary") == before:
            await found.client.ask(1)
        await found.until("counted", lambda _: found.counted() > at_first + 70)
        known, asked = found.counted(), sum(found.client.answers.values())
        await found.client.ask(30)
        await found.until("counted", lambda _: found.counted() >= known + 30)
        assert found.counted() == known + sum(found.client.answers.values()) - asked
        assert len(found.canary()["sources"]) == 2


async def test_without_requests_nothing_is_promoted_and_a_deadline_ends_it(
    api: Api, operator: OperatorProcess, tmp_path: Path
) -> None:
    step = {"percent": 50, "minimumRequests": 20, "deadlineSeconds": 60}
    async with deployed(api, tmp_path, steps=[step], approval="Manual") as found:
        await found.analysing()
        assert found.canary()["verdict"] == "NotEnoughData"
        await found.until(
            "passed", lambda status: (status.get("canary") or {}).get("phase") == "WaitingForApproval", asks=5
        )
        assert api.wait_reason("ModelDeployment", "router", "WaitingForApproval")["status"]["phase"] == "Canary"
        assert found.status()["applied"]["uri"] == ONE
        approved = {"rollout": {"canary": {"approvedRevision": found.canary()["revision"]}}}
        api.patch("ModelDeployment", "router", {"spec": approved})
        await found.until("promoted", lambda status: status["applied"]["uri"] == TWO)


def test_the_api_refuses_a_canary_that_nothing_could_split(api: Api) -> None:
    spec = {"model": {"uri": ONE}, "rollout": {"type": "Canary"}}
    with pytest.raises(RefusedError, match="needs a gateway"):
        api.create("ModelDeployment", "router", spec)
    with pytest.raises(RefusedError, match="canary is for type Canary"):
        api.create("ModelDeployment", "router", {**spec, "gateway": {}, "rollout": {"canary": {}}})
    for check in ({"metric": "ErrorRate", "maximumRatio": 2}, {"metric": "OutputTokensMean"}):
        rollout = {"type": "Canary", "canary": {"checks": [check]}}
        with pytest.raises(RefusedError, match="maximum"):
            api.create("ModelDeployment", "router", {**spec, "gateway": {}, "rollout": rollout})
