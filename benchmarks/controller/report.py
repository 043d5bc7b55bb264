"""What was measured: as a table with the aims, and as JSON with what is needed to judge and repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path

from rich.table import Table

from benchmarks.controller.cluster import Size
from benchmarks.controller.measure import ColdStart, Idle, Live
from benchmarks.controller.operator_process import ROOT
from benchmarks.controller.statistics import Distribution
from e2e.cluster.binaries import version

MIB = 1 << 20
AIM_TRAIN_SECONDS = 5.0
AIM_RESIDENT = 400 * MIB
AIM_COLD_START_SECONDS = 60.0
FLAT_GROWTH = 5 * MIB
"""Growth over an idle window with a resync in it that still counts as flat: the allocator's noise."""


@dataclass(frozen=True)
class Machine:
    """Where and of what it was measured."""

    time: str
    commit: str
    changed: bool
    """Whether the working tree differed from the commit."""
    cpu: str
    cores: int
    memory: int
    load_average: float
    """Of the last minute, before the benchmark began: above zero, somebody else used the machine too."""
    python: str
    kubernetes: str
    etcd: str
    kwok: str
    kopf: str


@dataclass(frozen=True)
class Results:
    """Everything that was measured."""

    machine: Machine
    size: Size
    seeded_per_second: float
    first_start: ColdStart
    live: Live
    cold_start: ColdStart
    idle: Idle
    control_plane_resident: dict[str, int]


@dataclass(frozen=True)
class Row:
    """A line of the table; `met` is None where there is no aim."""

    name: str
    value: str
    aim: str = ""
    met: bool | None = None


def machine() -> Machine:
    """This machine, now."""
    facts = dict(line.partition(":")[::2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.strip())
    cpu = next((value.strip() for name, value in facts.items() if name.strip() == "model name"), platform.machine())
    return Machine(
        time=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        commit=_git("rev-parse", "HEAD"),
        changed=bool(_git("status", "--porcelain", "--untracked-files=no")),
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        load_average=os.getloadavg()[0],
        python=platform.python_version(),
        kubernetes=version("kubernetes"),
        etcd=version("etcd"),
        kwok=version("kwok"),
        kopf=package_version("kopf"),
    )


def rows(results: Results) -> Iterator[Row]:
    """The table, line by line."""
    live, cold, idle = results.live, results.cold_start, results.idle
    train = live.create_to_train
    yield Row("create to preflight Job, p50 / p99", f"{_pair(live.create_to_preflight)} s")
    yield Row(
        "create to training Job, p50 / p99",
        f"{_pair(train)} s",
        f"p99 at most {AIM_TRAIN_SECONDS:g} s",
        train.p99 <= AIM_TRAIN_SECONDS,
    )
    for name, part in live.steps.items():
        yield Row(f"  {name}", f"{_pair(part)} s")
    yield Row("end of the preflight Pod to training Job, p50 / p99", f"{_pair(live.preflight_exit_to_train)} s")
    reads = sum(count for name, count in live.requests_per_job.items() if name.split()[0] in ("get", "list"))
    total = sum(live.requests_per_job.values())
    yield Row(
        "API requests a job, from create to running", f"{total:.1f} ({reads:.1f} reads, {total - reads:.1f} writes)"
    )
    yield Row(
        "CPU a job, by process",
        ", ".join(f"{name} {1000 * used / live.jobs:.0f} ms" for name, used in sorted(live.cpu_seconds.items())),
    )
    yield Row(
        f"cold start with {cold.objects:,} FineTuneJobs",
        f"{cold.seconds:.1f} s ({cold.cpu_seconds:.0f} s CPU)",
        f"under {AIM_COLD_START_SECONDS:g} s",
        cold.seconds < AIM_COLD_START_SECONDS,
    )
    peak = max(live.peak_resident, idle.resident_peak, cold.resident)
    yield Row("resident memory, peak", f"{peak / MIB:.0f} MiB", f"under {AIM_RESIDENT // MIB} MiB", peak < AIM_RESIDENT)
    growth = idle.resident_last - idle.resident_first
    yield Row(
        "resident memory over a resync",
        f"{idle.resident_first / MIB:.0f} to {idle.resident_last / MIB:.0f} MiB",
        "flat",
        growth <= FLAT_GROWTH,
    )
    writes = sum(idle.writes.values())
    yield Row(
        f"writes in {idle.seconds:.0f} s without a change, the Lease apart",
        str(writes) + (f" ({', '.join(idle.writes)})" if writes else ""),
        "0",
        writes == 0,
    )
    yield Row("Lease renewals", f"{60 * idle.lease_writes / idle.seconds:.1f} a minute")
    yield Row(
        f"a resync, {idle.looks:,} looks at FineTuneJobs",
        f"{idle.cpu_seconds:.0f} s CPU in {idle.seconds:.0f} s, {idle.reads} reads",
    )
    if live.refused:
        yield Row("requests that were refused", ", ".join(f"{count} x {what}" for what, count in live.refused.items()))


def table(results: Results) -> Table:
    """The rows for a terminal."""
    size, made_on = results.size, results.machine
    drawn = Table(
        "measure",
        "value",
        "aim",
        "",
        title=f"{size.live:,} live FineTuneJobs at {size.per_second:g}/s beside {size.finished:,} finished ones in "
        f"{size.namespaces} namespaces\n{made_on.cores} cores, Kubernetes {made_on.kubernetes}, "
        f"commit {made_on.commit[:10]}{' + changes' if made_on.changed else ''}",
    )
    for row in rows(results):
        drawn.add_row(row.name, row.value, row.aim, {True: "met", False: "MISSED", None: ""}[row.met])
    return drawn


def _pair(of: Distribution) -> str:
    return f"{of.p50:.2f} / {of.p99:.2f}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()
