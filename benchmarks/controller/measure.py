"""The benchmark, phase by phase; each function does one phase and returns what it measured."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.controller import kwok, load
from benchmarks.controller.audit import BENCHMARK, Milestones, Request, milestones
from benchmarks.controller.cluster import Cluster, Size, cluster
from benchmarks.controller.controllers import cpu_seconds
from benchmarks.controller.products.product import FINISHING, Product
from benchmarks.controller.statistics import Distribution, distribution, per_job
from e2e.cluster.components.control_plane import ControlPlane
from e2e.steps import Step, console, step

POLL_SECONDS = 0.25
SETTLED_SECONDS = 10.0
"""So long without a write, the product has nothing more to do."""
PHASE_SECONDS = 900.0
START_SECONDS = 120.0
NO_RESYNC_SECONDS = 86_400.0
"""A resync takes CPU and is measured by itself."""
STEPS = {
    "to the preflight Pod": ("asked", "child_created"),
    "scheduler: to a bound Pod": ("child_created", "child_bound"),
    "kwok: the Pod starts and ends": ("child_bound", "child_exited"),
    "end of the preflight Pod to the training Job": ("child_exited", "train_created"),
}
"""What create_to_train of a job with a preflight Pod is made of."""


@dataclass(frozen=True)
class ColdStart:
    """Of a product that finds `objects` finished jobs: until each has been reconciled and none waits."""

    objects: int
    seconds: float
    cpu_seconds: float
    resident: int
    writes: int
    requests: int


@dataclass(frozen=True)
class Live:
    """The jobs that were created at one rate."""

    per_second: float
    jobs: int
    behind_seconds: float
    """How late the latest of the create requests was sent."""
    create_to_child: Distribution
    create_to_train: Distribution
    steps: dict[str, Distribution]
    requests_per_job: dict[str, float]
    reads: float
    """Of requests_per_job."""
    writes: float
    refused: dict[str, int]
    cpu_seconds: dict[str, float]
    """Of each process, from the first create request until the last job trains and all is quiet."""
    peak_resident: int


@dataclass(frozen=True)
class Idle:
    """A while in which nothing changes, with one resync of those that do one."""

    seconds: float
    looks: int
    """How often a job was reconciled in it."""
    writes: dict[str, int]
    lease_writes: int
    reads: int
    cpu_seconds: float
    resident_first: int
    resident_last: int
    resident_peak: int


@dataclass(frozen=True)
class Round:
    """What one product did on one fresh control plane."""

    product: str
    controllers: tuple[str, ...]
    """The names of its processes."""
    load_average: float
    """Of the last minute, before it began: above zero, somebody else used the machine too."""
    seeded_per_second: float
    cold_start: ColdStart
    lives: tuple[Live, ...]
    idle: Idle | None

    @property
    def peak_resident(self) -> int:
        """Of its processes together, at any time."""
        return max(self.cold_start.resident, *(one.peak_resident for one in self.lives), *self._idle_peak())

    def _idle_peak(self) -> list[int]:
        return [] if self.idle is None else [self.idle.resident_peak]


async def one_round(make: Callable[[ControlPlane], Product], size: Size, *, with_idle: bool) -> Round:
    """Measure one product from an empty control plane on."""
    load_average = os.getloadavg()[0]
    with cluster(make, size.namespaces) as found:
        console.print(f"{found.product.name}:", markup=False)
        template = await finished_template(found)
        seeded = await seed(found, template, size)
        started = await cold_start(found, size.finished + 1)
        lives = tuple([await live(found, size, phase) for phase in range(len(size.rates))])
        found.controllers.stop()
        return Round(
            product=found.product.name,
            controllers=tuple(found.controllers.names),
            load_average=load_average,
            seeded_per_second=seeded,
            cold_start=started,
            lives=lives,
            idle=await idle(found, size) if with_idle else None,
        )


async def finished_template(found: Cluster) -> dict[str, Any]:
    """One job that has run from its creation to its end."""
    with step("Run one job to its end, the template of the finished ones"):
        found.controllers.start(NO_RESYNC_SECONDS)
        await _ready(found)
        async with load.connect(found.plane.kubeconfig, found.product) as kube:
            await found.product.prepare(kube)
            try:
                template = await load.run_one(kube, found.product, FINISHING, kwok.TEAM, START_SECONDS)
            except TimeoutError as error:
                raise found.controllers.stuck("It did not end") from error
        found.controllers.stop()
    return template


async def seed(found: Cluster, template: dict[str, Any], size: Size) -> float:
    """The finished jobs; returns how many were made in a second."""
    with step(f"Make {size.finished:,} finished jobs") as current, found.product.without_admission():
        started = time.monotonic()
        async with load.connect(found.plane.kubeconfig, found.product) as kube:
            await load.seed_finished(kube, found.product, template, size.finished, size.namespaces, current.say)
        return size.finished / (time.monotonic() - started)


async def cold_start(found: Cluster, objects: int) -> ColdStart:
    """Start the product upon what is there, and wait until it has looked at everything."""
    with step(f"Start it upon {objects:,} finished jobs") as current:
        found.audit.read()
        first = len(found.audit.requests)
        found.controllers.start(NO_RESYNC_SECONDS)
        await _reconciled(found, objects, current)
        seconds = time.time() - found.controllers.started
        found.audit.read()
        requests = _of(found, first)
        return ColdStart(
            objects=objects,
            seconds=seconds,
            cpu_seconds=found.controllers.latest().cpu_seconds,
            resident=found.controllers.latest().resident,
            writes=sum(one.is_write and one.resource != "leases" for one in requests),
            requests=len(requests),
        )


async def live(found: Cluster, size: Size, phase: int) -> Live:
    """Create the live jobs of one rate, and wait until each trains and nothing is left to do."""
    per_second = size.rates[phase]
    before = cpu_seconds(found.plane.home)
    found.audit.read()
    first = len(found.audit.requests)
    with step(f"Create {size.live:,} jobs, {per_second:g} a second") as current:
        async with load.connect(found.plane.kubeconfig_for(BENCHMARK, ["system:masters"]), found.product) as kube:
            prefix = f"live-{phase}"
            behind = await load.create_live(
                kube, found.product, prefix, size.live, per_second, size.namespaces, current.say
            )
    with step("Wait until all of them train") as current:
        await settled(found, first, size.live, current)
    after = cpu_seconds(found.plane.home)
    requests = _of(found, first)
    jobs = milestones(found.audit.requests[first:], found.product.family)
    counts = per_job(requests, len(jobs))
    reads = per_job((one for one in requests if not one.is_write), len(jobs))
    return Live(
        per_second=per_second,
        jobs=len(jobs),
        behind_seconds=behind,
        create_to_child=between(jobs, "asked", "child_created"),
        create_to_train=between(jobs, "asked", "train_created"),
        steps={
            name: between(jobs, start, end)
            for name, (start, end) in STEPS.items()
            if found.product.family.first_child == "pods"
        },
        requests_per_job=counts,
        reads=sum(reads.values()),
        writes=sum(counts.values()) - sum(reads.values()),
        refused=dict(Counter(f"{one.code} {one.verb} {one.resource}" for one in requests if one.code >= 400)),
        cpu_seconds={name: after[name] - before[name] for name in before},
        peak_resident=max(one.resident for one in found.controllers.samples),
    )


def between(jobs: dict[str, Milestones], start: str, end: str) -> Distribution:
    """Seconds from one milestone to another, over all jobs."""
    return distribution([getattr(one, end) - getattr(one, start) for one in jobs.values()])


async def settled(found: Cluster, first: int, jobs: int, current: Step) -> None:
    """Until every live job trains, and the product has not written for SETTLED_SECONDS."""
    deadline = time.monotonic() + PHASE_SECONDS
    quiet_since = time.monotonic()
    users = found.product.family.users
    while True:
        await asyncio.sleep(POLL_SECONDS)
        found.controllers.check()
        if any(one.user in users and one.is_write and one.resource != "leases" for one in found.audit.read()):
            quiet_since = time.monotonic()
        if time.monotonic() - quiet_since >= SETTLED_SECONDS:
            known = milestones(found.audit.requests[first:], found.product.family).values()
            training = sum(one.train_running is not None for one in known)
            if training >= jobs:
                return
            current.say(f"{training:,} of {jobs:,} train")
        if time.monotonic() > deadline:
            raise found.controllers.stuck(f"Not all of {jobs:,} train after {PHASE_SECONDS:.0f} s")


async def idle(found: Cluster, size: Size) -> Idle:
    """Watch the product do nothing until its next resync, where it has one, has gone through all objects."""
    live_jobs = size.live * len(size.rates)
    with step(f"Start it upon {live_jobs:,} live jobs too") as current:
        found.controllers.start(size.resync_seconds)
        await _reconciled(found, live_jobs + size.finished + 1, current)
    # The resync begins after one interval; the objects are spread over the next one.
    begins = found.controllers.started + size.resync_seconds
    until = begins + size.resync_seconds + SETTLED_SECONDS
    with step("Let nothing change, and watch what it does") as current:
        while time.time() < begins - SETTLED_SECONDS:
            current.say(f"a resync begins in {begins - time.time():.0f} s")
            await asyncio.sleep(1)
        found.audit.read()
        first, started, before = len(found.audit.requests), time.time(), found.controllers.latest()
        looks = found.controllers.looks()
        while time.time() < until:
            await asyncio.sleep(1)
            found.controllers.check()
            current.say(f"{found.controllers.looks() - looks:,} looked at, {until - time.time():.0f} s left")
    looks = found.controllers.looks() - looks
    if found.product.resyncs and looks < live_jobs:
        raise found.controllers.stuck(f"The resync looked {looks:,} times at {live_jobs:,} jobs")
    after = found.controllers.latest()
    found.audit.read()
    requests = _of(found, first)
    leases = sum(one.is_write and one.resource == "leases" for one in requests)
    window = [one.resident for one in found.controllers.samples if one.time >= started]
    return Idle(
        seconds=after.time - before.time,
        looks=looks,
        writes=dict(
            Counter(f"{one.verb} {one.resource}" for one in requests if one.is_write and one.resource != "leases")
        ),
        lease_writes=leases,
        reads=sum(not one.is_write for one in requests),
        cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        resident_first=window[0],
        resident_last=window[-1],
        resident_peak=max(one.resident for one in found.controllers.samples),
    )


async def _ready(found: Cluster) -> None:
    """Until all processes of the product are."""
    deadline = time.monotonic() + START_SECONDS
    while not found.controllers.is_ready():
        await asyncio.sleep(POLL_SECONDS)
        found.controllers.check()
        if time.monotonic() > deadline:
            raise found.controllers.stuck(f"It was not ready after {START_SECONDS:.0f} s")


async def _reconciled(found: Cluster, objects: int, current: Step) -> None:
    """Until the product is ready, has looked as often as there are jobs, and none waits."""
    deadline = time.monotonic() + PHASE_SECONDS
    while True:
        await asyncio.sleep(POLL_SECONDS)
        found.controllers.check()
        looks = found.controllers.looks()
        current.say(f"{looks:,} of {objects:,} reconciled")
        if looks >= objects and found.controllers.is_ready() and found.controllers.waiting() == 0:
            return
        if time.monotonic() > deadline:
            raise found.controllers.stuck(f"Only {looks:,} were reconciled in {PHASE_SECONDS:.0f} s")


def _of(found: Cluster, first: int) -> list[Request]:
    """The product's own requests since the one with this number, long watches apart."""
    users = found.product.family.users
    return [one for one in found.audit.requests[first:] if one.user in users and one.verb != "watch"]
