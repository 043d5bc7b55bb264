"""The Helm chart on a real API server: it installs, its account may do what the operator does, and nothing more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import control_plane
from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.ports import free_ports
from tests.integration.chart.release import (
    CHART,
    CLASS,
    NAMESPACE,
    RELEASE,
    ROOT,
    TEAM,
    TRAINER_IMAGE,
    Operator,
    Release,
    account_kubeconfig,
    certificate,
)

START_SECONDS = 60.0
NAMESPACES = [
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    for name in (NAMESPACE, TEAM)
]


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """A control plane of these tests' own: another operator in the same cluster would do the work under test."""
    commands = binaries(["kubectl", "helm"])
    with control_plane() as plane:
        found = Release(plane, commands)
        found.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": NAMESPACES})
        # Without the right that everyone else has, which the operator must not live on.
        values = f"--set=classesVisibleToAll=false,trainerImage={TRAINER_IMAGE}"
        found.helm("install", RELEASE, str(CHART), values)
        found.wait("crd", "--all", until="condition=Established")
        yield found


@pytest.fixture(scope="session")
def operator(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator under the chart's account, with the chart's certificate and flags, seen to lead and to watch."""
    folder = tmp_path_factory.mktemp("operator")
    for file, content in certificate(release).items():
        (folder / file).write_bytes(b64decode(content))
    health, metrics, progress = free_ports(3)
    container = release.get("-n", NAMESPACE, "deployment", RELEASE)["spec"]["template"]["spec"]["containers"][0]
    (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"]
    flags = [flag.replace(mounted, str(folder)) for flag in container["args"]]
    ports = [f"--health-port={health}", f"--metrics-port={metrics}", f"--progress-port={progress}"]
    log = folder / "log"
    access = f"--kubeconfig={account_kubeconfig(release)}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            with_parent([sys.executable, "-m", "finetune_operator", *flags, *ports, access]),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")},
        )
    running = Operator(log, progress, process)
    try:
        wait_until_ready(process, log, health)
        yield running
        if process.poll() != 0:  # what uninstalls ends it before
            running.end()
    finally:
        process.kill()


@pytest.fixture(scope="session")
def platform(release: Release, operator: Operator) -> None:
    """The default class, which the operator has found to be good."""
    release.kubectl("apply", "-f", "-", stdin=CLASS)
    release.wait("ftc/cpu", until="condition=Ready")


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
