"""A product's processes, and what they take: memory, CPU, their own metrics."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.controller.products.product import Launch, Metrics, Product
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine import processes
from e2e.steps import StepFailed, tail

SAMPLE_SECONDS = 0.5
LOG_LINES = 10
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """What the processes take together at a moment: resident bytes, and CPU seconds since their start."""

    time: float
    resident: int
    cpu_seconds: float


class Controllers:
    """The processes of one product, started and stopped together, sampled as long as they run."""

    def __init__(self, plane: ControlPlane, product: Product) -> None:
        self.samples: list[Sample] = []
        """Since the newest start."""
        self.started = 0.0
        self._plane = plane
        self._product = product
        self._launches: list[Launch] = []
        self._metrics: Metrics | None = None
        self._stopping = threading.Event()
        self._sampler: threading.Thread | None = None

    @property
    def names(self) -> list[str]:
        """Of the processes."""
        return [one.name for one in self._launches]

    def start(self, resync_seconds: float) -> None:
        """Start the processes and return at once; `started` is the time of it."""
        self._launches, self._metrics = self._product.launches(resync_seconds)
        self.started = time.time()
        for one in self._launches:
            processes.start(self._plane.home, one.name, one.argv, env=one.env)
        self.samples = []
        self._stopping.clear()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def stop(self) -> None:
        """End the processes; no error where none runs."""
        if self._sampler is None:
            return
        self._stopping.set()
        processes.stop(self._plane.home, *self.names)
        self._sampler.join()
        self._sampler = None
        self._product.stopped()

    def check(self) -> None:
        """Raises StepFailed with the end of its log when a process has ended by itself."""
        for name in self.names:
            if not processes.is_running(self._plane.home, name):
                raise processes.ended(self._plane.home, name)

    def stuck(self, what: str) -> StepFailed:
        """The exception that says what did not happen, with the last lines of those who should have seen to it."""
        said = [line for name in (*self.names, "kwok") for line in tail(self._log(name), LOG_LINES)]
        return StepFailed("\n".join([f"{what}. The last lines of the logs:", *(f"  | {line}" for line in said)]))

    def waiting(self) -> float | None:
        """How many objects wait to be reconciled; None while the product does not say."""
        return None if self._metrics is None else _metric(self._metrics.address, *self._metrics.waiting)

    def looks(self) -> int:
        """How often a job was reconciled, for whatever reason, since the start."""
        return 0 if self._metrics is None else int(_metric(self._metrics.address, *self._metrics.looks) or 0)

    def is_ready(self) -> bool:
        """Whether every process is ready, by its probe, and leads."""
        return all(_answers(one.ready) and self._product.leads(self._log(one.name)) for one in self._launches)

    def latest(self) -> Sample:
        """The newest sample."""
        return self.samples[-1]

    def _log(self, name: str) -> Path:
        return self._plane.home / "logs" / f"{name}.log"

    def _sample(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            stats = [_stat(self._plane.home, name) for name in self.names]
            alive = [one for one in stats if one is not None]
            # Field 24 of proc(5), counted from the third.
            resident = sum(int(fields[21]) for fields in alive) * os.sysconf("SC_PAGE_SIZE")
            self.samples.append(Sample(time.time(), resident, sum(_cpu_seconds(fields) for fields in alive)))


def summed(text: str, name: str, labels: Mapping[str, str]) -> float | None:
    """The sum of a metric's samples with these labels, in Prometheus' text format; None when there is none."""
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(values) if values else None


def cpu_seconds(home: Path) -> dict[str, float]:
    """What each running process of `home` has used so far."""
    stats = {name: _stat(home, name) for name in processes.running(home)}
    return {name: _cpu_seconds(fields) for name, fields in stats.items() if fields is not None}


def _metric(address: str, name: str, labels: Mapping[str, str]) -> float | None:
    """The sum of the samples with these labels; None while nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310
            return summed(answer.read().decode(), name, labels)
    except OSError:
        return None


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310
            return True
    except OSError:
        return False


def _stat(home: Path, name: str) -> list[str] | None:
    """The fields of proc(5)'s stat from the third on; None once the process is gone."""
    identity = processes.load(home / "run" / f"{name}.json")
    if identity is None:
        return None
    try:
        return Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _cpu_seconds(fields: list[str]) -> float:
    """User and system time: fields 14 and 15 of proc(5), counted from the third."""
    return (int(fields[11]) + int(fields[12])) / _TICKS
