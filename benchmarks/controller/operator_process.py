"""The operator as a process of its own, and what it takes: memory, CPU, its own metrics."""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.controller.audit import OPERATOR
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine import processes
from e2e.cluster.machine.ports import free_ports

PROCESS = "operator"
START_SECONDS = 120.0
SAMPLE_SECONDS = 0.5
ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """What the process takes at a moment: resident bytes, and CPU seconds since its start."""

    time: float
    resident: int
    cpu_seconds: float


class Operator:
    """One operator process after the other, sampled as long as it runs."""

    def __init__(self, plane: ControlPlane, options: Sequence[str]) -> None:
        self.samples: list[Sample] = []
        """Of the newest process."""
        self.started = 0.0
        self._plane = plane
        groups = ["system:serviceaccounts", "system:serviceaccounts:finetune-system"]
        self._kubeconfig = plane.kubeconfig_for(OPERATOR, groups)
        self._options = options
        self._metrics = self._ready = ""
        self._stopping = threading.Event()
        self._sampler: threading.Thread | None = None

    @property
    def log(self) -> Path:
        return self._plane.home / "logs" / f"{PROCESS}.log"

    def start(self) -> None:
        """Start a process and return at once; `started` is the time of it."""
        health, metrics = free_ports(2)
        self._metrics = f"http://127.0.0.1:{metrics}/metrics"
        self._ready = f"http://127.0.0.1:{health}/readyz"
        flags = {
            "kubeconfig": self._kubeconfig,
            "health-port": health,
            "metrics-port": metrics,
            "trainer-image": "example.com/trainer:1",
        }
        arguments = [*(f"--{name}={value}" for name, value in flags.items()), *self._options]
        source = {"PYTHONPATH": str(ROOT / "operator" / "src")}
        self.started = time.time()
        processes.start(
            self._plane.home, PROCESS, [sys.executable, "-m", "finetune_operator", "run", *arguments], env=source
        )
        identity = processes.load(self._plane.home / "run" / f"{PROCESS}.json")
        assert identity is not None
        self.samples = []
        self._stopping.clear()
        self._sampler = threading.Thread(target=self._sample, args=(identity.pid,), daemon=True)
        self._sampler.start()

    def stop(self) -> None:
        """End the process."""
        self._stopping.set()
        processes.stop(self._plane.home, PROCESS)
        if self._sampler is not None:
            self._sampler.join()

    def check(self) -> None:
        """Raises StepFailed with the end of its log when the process has ended by itself."""
        if not processes.is_running(self._plane.home, PROCESS):
            raise processes.ended(self._plane.home, PROCESS)

    def queue_depth(self) -> float | None:
        """How many objects wait to be reconciled; None while the process does not say."""
        return self._metric("finetune_operator_queue_depth", {})

    def looks(self) -> int:
        """How often a FineTuneJob was reconciled, for whatever reason, since the process started."""
        labels = {"kind": "FineTuneJob", "result": "ok"}
        return int(self._metric("finetune_operator_reconciliations_total", labels) or 0)

    def is_watching(self) -> bool:
        """Whether it has listed everything, and works."""
        try:
            with urllib.request.urlopen(self._ready, timeout=5):  # noqa: S310
                return True
        except OSError:
            return False

    def _metric(self, name: str, labels: dict[str, str]) -> float | None:
        """The sum of the samples with these labels; None while the process does not say."""
        try:
            with urllib.request.urlopen(self._metrics, timeout=5) as answer:  # noqa: S310
                text = answer.read().decode()
        except OSError:
            return None
        return summed(text, name, labels)

    def latest(self) -> Sample:
        """The newest sample."""
        return self.samples[-1]

    def _sample(self, pid: int) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                return
            # Field 24 of proc(5), counted from the third.
            self.samples.append(Sample(time.time(), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), _cpu_seconds(fields)))


def summed(text: str, name: str, labels: dict[str, str]) -> float | None:
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
    used = {}
    for name in processes.running(home):
        identity = processes.load(home / "run" / f"{name}.json")
        if identity is not None:
            used[name] = _cpu_seconds(Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split())
    return used


def _cpu_seconds(fields: list[str]) -> float:
    """User and system time: fields 14 and 15 of proc(5), counted from the third."""
    return (int(fields[11]) + int(fields[12])) / _TICKS
