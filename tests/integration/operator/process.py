"""The operator as a process of its own, as a developer starts it, which a test can kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.components.certificates import Authority
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.ports import free_ports

ROOT = Path(__file__).parents[3]
START_SECONDS = 60.0
STOP_SECONDS = 20.0
ADDRESS = "127.0.0.1"


class OperatorProcess:
    """`python -m finetune_operator run --kubeconfig ...` on free ports, with a progress endpoint over TLS."""

    def __init__(self, plane: ControlPlane, folder: Path, options: Sequence[str] = ()) -> None:
        self._options = options
        self.log = folder / "operator.log"
        self._health, self._metrics, self.progress_port = free_ports(3)
        self._kubeconfig = plane.kubeconfig
        self._tls = folder / "tls"
        self._process: subprocess.Popen[bytes] | None = None
        authority = Authority(self._tls)
        issued = authority.issue("tls", "finetune-operator", hosts=[ADDRESS])
        assert {issued.certificate.name, issued.key.name, authority.certificate.name} == {
            "tls.crt",
            "tls.key",
            "ca.crt",
        }
        self.ca = authority.certificate

    @property
    def metrics_url(self) -> str:
        return f"http://{ADDRESS}:{self._metrics}/metrics"

    @property
    def progress_url(self) -> str:
        return f"https://{ADDRESS}:{self.progress_port}"

    def start(self) -> None:
        """Start, and wait until it works, or stands by."""
        flags = {
            "kubeconfig": self._kubeconfig,
            "health-port": self._health,
            "metrics-port": self._metrics,
            "progress-port": self.progress_port,
            "progress-url": self.progress_url,
            "tls-directory": self._tls,
            "trainer-image": "example.com/trainer:1",
            "gateway-image": "example.com/operator:1",
        }
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                with_parent(
                    [
                        sys.executable,
                        "-m",
                        "finetune_operator",
                        "run",
                        *(f"--{name}={value}" for name, value in flags.items()),
                        *self._options,
                    ]
                ),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")},
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers("/readyz"):
            assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: no time to end anything."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        finally:
            self._process.kill()

    def answers(self, path: str) -> bool:
        """Whether a probe succeeds."""
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{self._health}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
