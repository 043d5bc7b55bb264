"""The way from this machine to a Service in a cluster."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster.binaries import binaries
from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.commands import run
from e2e.steps import StepFailed

CONNECT_SECONDS = 2.0
FORWARD_SECONDS = 30.0


@contextlib.contextmanager
def service_url(kubeconfig: Path, namespace: str, name: str, port: int) -> Iterator[str]:
    """The address of a Service's HTTP port, as in `http://HOST:PORT`, usable as long as the context lasts.

    That is its ClusterIP where the machine is a node of the cluster, else `kubectl port-forward`. Raises StepFailed.
    """
    kubectl = [str(binaries(["kubectl"])["kubectl"]), "--kubeconfig", str(kubeconfig), "--namespace", namespace]
    address = run(*kubectl, "get", "service", name, "--output=jsonpath={.spec.clusterIP}")
    if _connects(address, port):
        yield f"http://{address}:{port}"
        return
    command = [*kubectl, "port-forward", f"service/{name}", f":{port}", "--address=127.0.0.1"]
    with subprocess.Popen(
        with_parent(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as forwarding:
        try:
            yield f"http://127.0.0.1:{_forwarded_port(forwarding, name)}"
        finally:
            forwarding.kill()


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _forwarded_port(forwarding: subprocess.Popen[str], name: str) -> int:
    """The local port that `kubectl port-forward` says it listens on."""
    said: list[str] = []
    deadline = time.monotonic() + FORWARD_SECONDS
    assert forwarding.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(forwarding.stdout, selectors.EVENT_READ)
        while selector.select(timeout=max(0.0, deadline - time.monotonic())):
            line = forwarding.stdout.readline()
            if found := re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line):
                return int(found[1])
            if not line:
                break
            said.append(line.strip())
    raise StepFailed(f"`kubectl port-forward service/{name}` does not forward: {' '.join(said) or 'it says nothing'}")
