"""What was measured: as a table with the aims, and as JSON with what is needed to judge and repeat it."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path

from rich.table import Table

from benchmarks.controller.cluster import Size
from benchmarks.controller.measure import Idle, Live, Round
from benchmarks.controller.products.kubeflow import build
from benchmarks.controller.products.kubeflow.product import Kubeflow
from benchmarks.controller.products.ours import ROOT, OnRevisions, Ours
from e2e.cluster.binaries import version

MIB = 1 << 20
AIM_READS = 1.0
AIM_WRITES = 6.0
AIM_CPU_MS = 150.0
"""Of all processes, for a job with a preflight Pod."""
AIM_OPERATOR_CPU_MS = 15.0
AIM_TRAIN_SECONDS = {5.0: 3.0, 10.0: 6.0}
"""The 99th percentile, by creates a second."""
AIM_COLD_START_SECONDS = {3_000: 5.0, 11_000: 20.0}
"""By finished jobs: the aim of the smallest number that is not below what was measured."""
AIM_RESIDENT = 300 * MIB
"""With at most 11,000 jobs."""
MOST_OBJECTS = 11_000
FLAT_GROWTH = 5 * MIB
"""Growth over an idle window with a resync in it that still counts as flat: the allocator's noise."""
MEASURED_APART = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")


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
    kubeflow_trainer: str
    jobset: str


@dataclass(frozen=True)
class Results:
    """Everything that was measured."""

    machine: Machine
    size: Size
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Row:
    """A line of the table: a value for each product, and our aim; `met` is None where there is none."""

    name: str
    values: tuple[str, ...]
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
        kubeflow_trainer=build.version(build.TRAINER),
        jobset=build.version(build.JOBSET),
    )


def products(results: Results) -> dict[str, list[Round]]:
    """The rounds of each product; ours first."""
    found: dict[str, list[Round]] = {}
    for one in sorted(results.rounds, key=lambda one: one.product != Ours.name):
        found.setdefault(one.product, []).append(one)
    return found


def rows(results: Results) -> Iterator[Row]:
    """The table, line by line: medians of the rounds."""
    rounds = list(products(results).values())

    def row(name: str, of: Callable[[Round], float], digits: int, unit: str = "", most: float | None = None) -> Row:
        measured = [[of(one) for one in of_product] for of_product in rounds]
        values = tuple(f"{spread(one, digits)}{unit}" for one in measured)
        if most is None:
            return Row(name, values)
        return Row(name, values, f"at most {most:g}{unit}", statistics.median(measured[0]) <= most)

    yield row("CPU a job: all processes", cpu_ms, 0, " ms", AIM_CPU_MS)
    yield from _beside_the_rival(products(results))
    for process in MEASURED_APART:
        yield row(f"  {process}", partial(cpu_ms, processes=[process]), 0, " ms")
    yield row("  the controllers", lambda one: cpu_ms(one, one.controllers), 0, " ms", AIM_OPERATOR_CPU_MS)
    yield row("reads a job", lambda one: _mean(one.lives, lambda live: live.reads), 1, most=AIM_READS)
    yield row("writes a job", lambda one: _mean(one.lives, lambda live: live.writes), 1, most=AIM_WRITES)
    for phase, per_second in enumerate(results.size.rates):
        for percent in ("p50", "p99"):
            to_child, to_train = (partial(_latency, phase, part, percent) for part in ("child", "train"))
            most = AIM_TRAIN_SECONDS.get(per_second) if percent == "p99" else None
            yield row(f"{per_second:g}/s: create to first child, {percent}", to_child, 2, " s")
            yield row(f"{per_second:g}/s: create to training Job, {percent}", to_train, 2, " s", most)
    finished = results.size.finished
    aim = cold_start_aim(finished)
    yield row(f"cold start upon {finished:,} finished jobs", lambda one: one.cold_start.seconds, 1, " s", aim)
    most_resident = AIM_RESIDENT / MIB if finished <= MOST_OBJECTS else None
    yield row("resident memory, peak", lambda one: one.peak_resident / MIB, 0, " MiB", most_resident)
    yield from _idle_rows([next((one.idle for one in of_product if one.idle), None) for of_product in rounds])


def _beside_the_rival(rounds: dict[str, list[Round]]) -> Iterator[Row]:
    """The jobs on revisions of Datasets against the rival's, where both were measured."""
    if not {OnRevisions.name, Kubeflow.name} <= rounds.keys():
        return
    ours, rivals = (statistics.median(map(cpu_ms, rounds[name])) for name in (OnRevisions.name, Kubeflow.name))
    values = tuple(f"{ours - rivals:+.0f} ms" if name == OnRevisions.name else "" for name in rounds)
    yield Row("  on revisions, more than Kubeflow Trainer", values, "at most 0 ms", ours <= rivals)


def cold_start_aim(finished: int) -> float | None:
    """Seconds; None where there are more finished jobs than any aim is for."""
    return next((most for count, most in AIM_COLD_START_SECONDS.items() if finished <= count), None)


def cpu_ms(of: Round, processes: Sequence[str] | None = None) -> float:
    """Milliseconds of CPU a job, of some processes or of all, over all rates."""
    used = sum(
        seconds
        for live in of.lives
        for name, seconds in live.cpu_seconds.items()
        if processes is None or name in processes
    )
    return 1000 * used / sum(live.jobs for live in of.lives)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and from where to where the values reach when they are not the same."""
    low, middle, high = (f"{one:.{digits}f}" for one in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def table(results: Results) -> Table:
    """The rows for a terminal."""
    size, made_on = results.size, results.machine
    drawn = Table(
        "measure",
        *products(results),
        "aim",
        "",
        title=f"{size.live:,} live jobs at each rate beside {size.finished:,} finished ones in {size.namespaces} "
        f"namespaces; median of {size.rounds} rounds\n{made_on.cores} cores, Kubernetes {made_on.kubernetes}, "
        f"commit {made_on.commit[:10]}{' + changes' if made_on.changed else ''}",
        caption="Load before each round: "
        + ", ".join(f"{one.product} {one.load_average:.1f}" for one in results.rounds)
        + ". A FineTuneJob has a preflight Pod and a training Job, a TrainJob has only the latter.",
    )
    for row in rows(results):
        drawn.add_row(row.name, *row.values, row.aim, {True: "met", False: "MISSED", None: ""}[row.met])
    return drawn


def _mean(lives: Sequence[Live], of: Callable[[Live], float]) -> float:
    """A job's, over all rates."""
    return sum(of(live) * live.jobs for live in lives) / sum(live.jobs for live in lives)


def _latency(phase: int, part: str, percent: str, of: Round) -> float:
    """Seconds from the create request to the first child, or to the training Job, at one of the rates."""
    live = of.lives[phase]
    found: float = getattr(live.create_to_child if part == "child" else live.create_to_train, percent)
    return found


def _idle_rows(idles: Sequence[Idle | None]) -> Iterator[Row]:
    """Of the products, ours first, with nothing to do; none where that was not measured."""
    ours = idles[0]
    if ours is None:
        return
    measured = [one for one in idles if one is not None]
    yield Row(
        f"writes in {ours.seconds:.0f} s without a change",
        tuple(str(sum(one.writes.values())) for one in measured),
        "0",
        not ours.writes,
    )
    yield Row("  Lease writes apart", tuple(f"{60 * one.lease_writes / one.seconds:.1f} a minute" for one in measured))
    yield Row(
        "  meanwhile, with a resync if it has one",
        tuple(f"{one.cpu_seconds:.1f} s CPU, {one.looks:,} reconciled, {one.reads} reads" for one in measured),
    )
    yield Row(
        "  resident memory meanwhile",
        tuple(f"{one.resident_first / MIB:.0f} to {one.resident_last / MIB:.0f} MiB" for one in measured),
        "flat",
        ours.resident_last - ours.resident_first <= FLAT_GROWTH,
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()
