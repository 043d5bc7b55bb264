"""The benchmark, phase by phase; each function does one phase and returns what it measured."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.controller import kwok, load
from benchmarks.controller.audit import BENCHMARK, OPERATOR, Milestones, milestones
from benchmarks.controller.cluster import Cluster, Size, stuck
from benchmarks.controller.operator_process import cpu_seconds
from benchmarks.controller.statistics import Distribution, distribution, per_job
from e2e.steps import Step, step

POLL_SECONDS = 0.25
SETTLED_SECONDS = 10.0
"""So long without a write, the operator has nothing more to do."""
PHASE_SECONDS = 900.0


@dataclass(frozen=True)
class ColdStart:
    """Of an operator that finds `objects` FineTuneJobs: until each has been reconciled and none waits."""

    objects: int
    seconds: float
    cpu_seconds: float
    resident: int
    writes: int
    requests: int


@dataclass(frozen=True)
class Live:
    """The jobs that were created at a rate."""

    jobs: int
    behind_seconds: float
    """How late the latest of the create requests was sent."""
    create_to_preflight: Distribution
    create_to_train: Distribution
    preflight_exit_to_train: Distribution
    steps: dict[str, Distribution]
    """What create_to_train is made of."""
    requests_per_job: dict[str, float]
    refused: dict[str, int]
    cpu_seconds: dict[str, float]
    """Of each process, from the first create request until the last job trains."""
    peak_resident: int


@dataclass(frozen=True)
class Idle:
    """A while in which nothing changes, with one resync in it."""

    seconds: float
    looks: int
    """How often a FineTuneJob was reconciled in it: the resync looks at each that is not finished."""
    writes: dict[str, int]
    lease_writes: int
    reads: int
    cpu_seconds: float
    resident_first: int
    resident_last: int
    resident_peak: int


async def finished_template(found: Cluster) -> dict[str, Any]:
    """One FineTuneJob that has run from its creation to its end."""
    with step("Run one FineTuneJob to its end, the template of the finished ones"):
        found.operator.start()
        async with load.connect(found.plane.kubeconfig) as kube:
            await load.make_class(kube)
            try:
                template = await load.run_one(kube, kwok.FINISHING, load.team(0, 1), "Succeeded", 120)
            except TimeoutError as error:
                raise stuck(found, "It did not end") from error
        found.operator.stop()
    return template


async def seed(found: Cluster, template: dict[str, Any], size: Size) -> float:
    """The finished jobs; returns how many were made in a second."""
    with step(f"Make {size.finished:,} finished FineTuneJobs") as current:
        started = time.monotonic()
        async with load.connect(found.plane.kubeconfig) as kube:
            await load.seed_finished(kube, template, size.finished, size.namespaces, current.say)
    return size.finished / (time.monotonic() - started)


async def cold_start(found: Cluster, objects: int) -> ColdStart:
    """Start the operator upon what is there, and wait until it has looked at everything."""
    with step(f"Start the operator upon {objects:,} FineTuneJobs") as current:
        found.audit.read()
        first = len(found.audit.requests)
        found.operator.start()
        deadline = time.monotonic() + PHASE_SECONDS
        while True:
            await asyncio.sleep(POLL_SECONDS)
            found.operator.check()
            looks = found.operator.looks()
            current.say(f"{looks:,} of {objects:,} reconciled")
            if looks >= objects and found.operator.is_watching() and found.operator.queue_depth() == 0:
                break
            if time.monotonic() > deadline:
                raise stuck(found, f"Only {looks:,} were reconciled in {PHASE_SECONDS:.0f} s")
        seconds = time.time() - found.operator.started
        found.audit.read()
        requests = [one for one in found.audit.requests[first:] if one.user == OPERATOR]
        return ColdStart(
            objects=objects,
            seconds=seconds,
            cpu_seconds=found.operator.latest().cpu_seconds,
            resident=found.operator.latest().resident,
            writes=sum(one.is_write and one.resource != "leases" for one in requests),
            requests=len(requests),
        )


async def live(found: Cluster, size: Size) -> Live:
    """Create the live jobs, and wait until each trains and nothing is left to do."""
    before = cpu_seconds(found.plane.home)
    found.audit.read()
    first = len(found.audit.requests)
    with step(f"Create {size.live:,} FineTuneJobs, {size.per_second:g} a second") as current:
        async with load.connect(found.plane.kubeconfig_for(BENCHMARK, ["system:masters"])) as kube:
            behind = await load.create_live(kube, size.live, size.per_second, size.namespaces, current.say)
    with step("Wait until all of them train") as current:
        await settled(found, first, size.live, current)
    after = cpu_seconds(found.plane.home)
    requests = found.audit.requests[first:]
    of_operator = [one for one in requests if one.user == OPERATOR]
    jobs = milestones(requests)
    return Live(
        jobs=len(jobs),
        behind_seconds=behind,
        create_to_preflight=between(jobs, "asked", "preflight_created"),
        create_to_train=between(jobs, "asked", "train_created"),
        preflight_exit_to_train=between(jobs, "preflight_exited", "train_created"),
        steps={
            "operator: create to preflight Job": between(jobs, "asked", "preflight_created"),
            "Job controller, scheduler: to a bound Pod": between(jobs, "preflight_created", "preflight_bound"),
            "kwok: the Pod starts and ends": between(jobs, "preflight_bound", "preflight_exited"),
            "Job controller: the Job is complete": between(jobs, "preflight_exited", "preflight_completed"),
            "operator: to training Job": between(jobs, "preflight_completed", "train_created"),
        },
        requests_per_job=per_job(of_operator, len(jobs)),
        refused=dict(Counter(f"{one.code} {one.verb} {one.resource}" for one in of_operator if one.code >= 400)),
        cpu_seconds={name: after[name] - before[name] for name in before},
        peak_resident=max(one.resident for one in found.operator.samples),
    )


def between(jobs: dict[str, Milestones], start: str, end: str) -> Distribution:
    """Seconds from one milestone to another, over all jobs."""
    return distribution([getattr(one, end) - getattr(one, start) for one in jobs.values()])


async def settled(found: Cluster, first: int, jobs: int, current: Step) -> None:
    """Until every live job trains, and the operator has not written for SETTLED_SECONDS."""
    deadline = time.monotonic() + PHASE_SECONDS
    quiet_since = time.monotonic()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        found.operator.check()
        if any(one.user == OPERATOR and one.is_write and one.resource != "leases" for one in found.audit.read()):
            quiet_since = time.monotonic()
        quiet = time.monotonic() - quiet_since
        if quiet >= SETTLED_SECONDS:
            training = sum(one.train_running is not None for one in milestones(found.audit.requests[first:]).values())
            if training >= jobs:
                return
        else:
            training = sum(
                one.user == OPERATOR and (one.verb, one.resource) == ("create", "jobs")
                for one in found.audit.requests[first:]
            )
            current.say(f"{training:,} Jobs made for {jobs:,} FineTuneJobs")
        if time.monotonic() > deadline:
            raise stuck(found, f"Not all of {jobs:,} train after {PHASE_SECONDS:.0f} s")


async def idle(found: Cluster, size: Size) -> Idle:
    """Watch the operator do nothing until its next resync has gone through all objects."""
    # The resync begins after one interval; the objects are spread over the next one.
    until = found.operator.started + 2 * size.resync_seconds + SETTLED_SECONDS
    with step("Let nothing change, and watch what the operator does") as current:
        while time.time() < found.operator.started + size.resync_seconds - SETTLED_SECONDS:
            current.say(f"a resync begins in {found.operator.started + size.resync_seconds - time.time():.0f} s")
            await asyncio.sleep(1)
        found.audit.read()
        first, started, before = len(found.audit.requests), time.time(), found.operator.latest()
        looks = found.operator.looks()
        while time.time() < until:
            await asyncio.sleep(1)
            found.operator.check()
            current.say(f"{found.operator.looks() - looks:,} looked at, {until - time.time():.0f} s left")
    looks = found.operator.looks() - looks
    if looks < size.live:
        raise stuck(found, f"The resync looked {looks:,} times at {size.live:,} FineTuneJobs")
    after = found.operator.latest()
    found.audit.read()
    requests = [one for one in found.audit.requests[first:] if one.user == OPERATOR]
    reads = [one for one in requests if not one.is_write]
    leases = sum(one.is_write and one.resource == "leases" for one in requests)
    window = [one.resident for one in found.operator.samples if one.time >= started]
    return Idle(
        seconds=after.time - before.time,
        looks=looks,
        writes=dict(
            Counter(f"{one.verb} {one.resource}" for one in requests if one.is_write and one.resource != "leases")
        ),
        lease_writes=leases,
        reads=len(reads),
        cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        resident_first=window[0],
        resident_last=window[-1],
        resident_peak=max(window),
    )
