"""One leader among the operator's replicas, elected by a Lease with client-go's rules (tools/leaderelection).

A candidate takes the Lease when it has no holder, or when its holder has not renewed it for the whole lease duration by
the candidate's own clock (so that clocks need not agree). Every write is conditional on the resourceVersion that was
read: of two candidates one wins. The leader renews, and gives up well before another may take over.

Where the number of shards changes (runtime/sharding.py), a candidate also waits while one holds a Lease that divides
the namespaces in another way. It looks after it has taken its own: of two that take theirs at the same time, at least
one sees the other. The one of fewer shards then lets go, and the one of more keeps its Lease and waits.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import LEASES, Object
from finetune_operator.runtime.sharding import Shard, shards_of

LEASE_SECONDS = 15.0
RENEW_DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 2.0
_JITTER = 1.2

log = structlog.get_logger(__name__)


class LeadershipLostError(Exception):
    """The Lease could not be renewed in time, or it has another holder: another operator may lead already."""


@dataclass(frozen=True)
class Timing:
    """client-go's three durations, in seconds."""

    lease: float = LEASE_SECONDS
    renew_deadline: float = RENEW_DEADLINE_SECONDS
    retry: float = RETRY_SECONDS


class Election:
    """This process's candidacy for one Lease."""

    def __init__(
        self, kube: Kube, namespace: str, shard: Shard, identity: str | None = None, timing: Timing | None = None
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._shard = shard
        self._name = shard.lease
        self._timing = timing or Timing()
        # Processes that run at the same time need different identities. The successor of a dead one may have the
        # same, and then continues with its Lease at once.
        self.identity = identity or f"{os.uname().nodename}_{secrets.token_hex(8)}"
        self.holder = ""
        """The identity of the leader, as far as is known."""
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._others: dict[str, tuple[Object, float]] = {}
        """The Leases that exclude this one, as they were when they last changed, and when that was seen."""
        self._acquired = False
        self._renewed_at = 0.0
        self._asked_at = 0.0

    @property
    def leads(self) -> bool:
        """Whether this process leads, and no other can."""
        return self._acquired and self.holder == self.identity and _clock() < self._renewed_at + self._timing.lease

    def silent_seconds(self) -> float:
        """Seconds since the API server last answered who leads."""
        return _clock() - self._asked_at

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._try_alone():  # noqa: ASYNC110 - the Leases are polled
            await asyncio.sleep(self._timing.retry * random.uniform(1, _JITTER))
        self._acquired = True
        log.info("leader", lease=f"{self._namespace}/{self._name}", identity=self.identity)

    async def hold(self) -> None:
        """Renew for as long as that succeeds. Raises LeadershipLostError."""
        while True:
            await asyncio.sleep(self._timing.retry)
            try:
                async with asyncio.timeout_at(self._renewed_at + self._timing.renew_deadline):
                    while not await self._try():
                        if self.holder != self.identity:
                            raise LeadershipLostError(f"{self.holder or 'nobody'} holds the Lease {self._name} now")
                        await asyncio.sleep(self._timing.retry)
            except TimeoutError as error:
                raise LeadershipLostError(
                    f"the Lease {self._name} was not renewed for {self._timing.renew_deadline:.0f} s"
                ) from error

    async def release(self) -> None:
        """Let another replica lead at once; if that fails, it waits for the Lease to expire."""
        if self.holder != self.identity:
            return
        self.holder, self._acquired = "", False
        try:
            async with asyncio.timeout(self._timing.retry):
                await self._let_go()
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released", error=str(error) or "timed out")

    async def _let_go(self) -> None:
        # The end may have come while the Lease was being renewed: its version is not the last that was heard of.
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        if lease is not None and lease.get("spec", {}).get("holderIdentity") == self.identity:
            free = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
            await self._kube.replace({**lease, "spec": {**lease["spec"], **free}})

    async def _try_alone(self) -> bool:
        """Take or renew the Lease; whether it is ours now, and no other process holds one that excludes it."""
        try:
            if await self._most_shards_of_others() > self._shard.count:
                await self.release()
                return False
            if not (await self._try() and await self._most_shards_of_others() == 0):
                return False
            # After a slow list the time for the first renewal would be over soon, or already.
            return _clock() < self._renewed_at + self._timing.retry or await self._try()
        except (ApiError, TimeoutError) as error:
            log.warning("leases not listed", error=str(error) or "timed out")
            return False

    async def _most_shards_of_others(self) -> int:
        """The highest number of shards, other than ours, with a Lease that is held; 0 if there is none."""
        async with asyncio.timeout(self._timing.renew_deadline):
            leases = await self._kube.list(LEASES, self._namespace)
        self._asked_at = _clock()
        counts = ((lease, shards_of(lease["metadata"]["name"])) for lease in leases)
        others = [(lease, count) for lease, count in counts if count not in (0, self._shard.count)]
        return max((count for lease, count in others if self._is_held(lease)), default=0)

    def _is_held(self, lease: Object) -> bool:
        """Whether the Lease of another holder has not expired, by this process's clock."""
        name, spec = lease["metadata"]["name"], lease.get("spec", {})
        seen, since = self._others.get(name, ({}, 0.0))
        if seen != spec:
            since = _clock()
            self._others[name] = (spec, since)
        return bool(spec.get("holderIdentity")) and _clock() < since + float(spec.get("leaseDurationSeconds") or 0)

    async def _try(self) -> bool:
        """Take or renew the Lease, if it is ours or has no holder."""
        try:
            began = _clock()
            async with asyncio.timeout(self._timing.renew_deadline):
                return await self._take_or_renew(began)
        except (ApiError, TimeoutError) as error:
            log.warning("lease not read or written", error=str(error) or "timed out")
            return False

    async def _take_or_renew(self, began: float) -> bool:
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        self._asked_at = _clock()
        if lease is None:
            body: Object = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec({}),
            }
            self._took(await self._kube.create(LEASES, self._namespace, body), began)
            return True
        spec = lease.get("spec", {})
        if self._seen is None or self._seen["spec"] != spec:
            self._seen, self._seen_at = {**lease, "spec": spec}, _clock()
        self.holder = spec.get("holderIdentity") or ""
        valid_until = self._seen_at + float(spec.get("leaseDurationSeconds") or 0)
        if self.holder not in ("", self.identity) and _clock() < valid_until:
            return False
        self._took(await self._kube.replace({**lease, "spec": self._spec(spec)}), began)
        return True

    def _took(self, lease: Object, began: float) -> None:
        self._seen, self._seen_at = lease, _clock()
        self._renewed_at = began
        self.holder = self.identity

    def _spec(self, before: Object) -> Object:
        moment, transitions = _micro_time(), int(before.get("leaseTransitions") or 0)
        mine = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._timing.lease)),
            "acquireTime": before["acquireTime"] if mine else moment,
            "renewTime": moment,
            "leaseTransitions": transitions if mine or not before else transitions + 1,
        }


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _micro_time() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
