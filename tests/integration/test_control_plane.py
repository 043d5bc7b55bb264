"""A control plane of one's own: quick, complete but for containers, and any number side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.cluster.binaries import CONTROL_PLANE, binaries
from e2e.cluster.components.control_plane import PROCESSES, ControlPlane, control_plane
from e2e.cluster.machine import processes
from e2e.cluster.machine.processes import Identity

JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "two"},
    "spec": {
        "completions": 2,
        "parallelism": 2,
        "completionMode": "Indexed",
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example.com/none"}]}},
    },
}


@dataclass(frozen=True)
class Started:
    """A control plane, and how long its start took."""

    plane: ControlPlane
    seconds: float


@pytest.fixture(scope="module")
def started() -> Iterator[Started]:
    binaries(CONTROL_PLANE)
    began = time.monotonic()
    with control_plane() as plane:
        yield Started(plane, time.monotonic() - began)


@pytest.fixture(scope="module")
def plane(started: Started) -> ControlPlane:
    return started.plane


def kubectl(config: Path, *words: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binaries(["kubectl"])["kubectl"], "--kubeconfig", config, *words],
        input=json.dumps(stdin),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def eventually(check: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_it_is_up_within_the_promised_time(started: Started) -> None:
    assert started.seconds < 30, "10 s on an idle machine"
    assert "default" in kubectl(started.plane.kubeconfig, "get", "namespaces", "-o", "name").stdout


def test_the_job_controller_makes_pods(plane: ControlPlane) -> None:
    created = kubectl(plane.kubeconfig, "create", "-f", "-", stdin=JOB)
    assert created.returncode == 0, created.stderr
    indexes = "jsonpath={.items[*].metadata.labels.batch\\.kubernetes\\.io/job-completion-index}"

    def has_both() -> bool:
        answer = kubectl(plane.kubeconfig, "get", "pods", "-l", "job-name=two", "-o", indexes)
        return sorted(answer.stdout.split()) == ["0", "1"]

    assert eventually(has_both)


def test_a_deleted_namespace_takes_its_objects_along(plane: ControlPlane) -> None:
    assert kubectl(plane.kubeconfig, "create", "namespace", "gone").returncode == 0
    assert kubectl(plane.kubeconfig, "-n", "gone", "create", "configmap", "one").returncode == 0
    assert kubectl(plane.kubeconfig, "delete", "namespace", "gone", "--timeout=60s").returncode == 0
    assert plane.get("/api/v1/namespaces/gone") is None


def test_another_user_may_do_what_rbac_allows(plane: ControlPlane) -> None:
    nobody = plane.kubeconfig_for("system:serviceaccount:default:nobody", ["system:serviceaccounts"])
    refused = kubectl(nobody, "get", "secrets")
    assert "system:serviceaccount:default:nobody" in refused.stderr
    assert "cannot list resource" in refused.stderr
    assert kubectl(plane.kubeconfig, "get", "secrets").returncode == 0


def test_a_second_one_shares_nothing_with_the_first_and_leaves_no_process_and_no_file(plane: ControlPlane) -> None:
    with control_plane() as other:
        identities = [processes.load(other.home / "run" / f"{name}.json") for name in PROCESSES]
        assert kubectl(other.kubeconfig, "create", "namespace", "only-here").returncode == 0
        assert plane.get("/api/v1/namespaces/only-here") is None
        wrong_one = kubectl(plane.kubeconfig, "--server", other.server, "get", "namespaces")
        assert wrong_one.returncode != 0, "another control plane's administrator is nobody here"
    assert plane.get("/readyz") == b"ok"
    assert all(identity is not None and not processes.is_alive(identity) for identity in identities)
    assert not other.home.exists()


def test_it_goes_with_a_run_that_was_killed() -> None:
    script = (
        "import os, signal\n"
        "from e2e.cluster.components.control_plane import control_plane\n"
        "with control_plane() as plane:\n"
        "    print(plane.home, *(file.read_text() for file in plane.home.glob('run/*.json')), sep='\\n', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join(sys.path)
    killed = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    home, *records = killed.stdout.splitlines()
    servers = [Identity(**json.loads(record)) for record in records]
    assert len(servers) == len(PROCESSES)
    assert eventually(lambda: not any(processes.is_alive(server) for server in servers))
    assert eventually(lambda: not Path(home).exists())
