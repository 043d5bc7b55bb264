"""The local cluster where a Docker engine answers: kind, with a registry beside it as kind's docs describe
(https://kind.sigs.k8s.io/docs/user/local-registry/)."""

from __future__ import annotations

import shutil
from pathlib import Path

from e2e.cluster.binaries import binaries
from e2e.cluster.machine.commands import ask, run
from e2e.cluster.places import cluster_home, kubeconfig, registry_root
from e2e.cluster.registry import REGISTRY
from e2e.steps import step

NAME = "finetune-operator"
REGISTRY_CONTAINER = f"{NAME}-registry"
REGISTRY_IMAGE = "registry:3"
CREATE_SECONDS = 600.0


def docker_answers() -> bool:
    """Whether there is a Docker engine behind the `docker` command."""
    return shutil.which("docker") is not None and ask("docker", "info", timeout=10) is not None


def up() -> None:
    """Create the cluster and its registry, unless they are there."""
    if is_healthy():
        return
    down()
    cluster_home().mkdir(parents=True, exist_ok=True, mode=0o700)
    registry_root().mkdir(parents=True, exist_ok=True)
    command = binaries(["kind"])["kind"]
    remedy = "`docker info` should answer, and `docker pull` work"
    with step("Create the kind cluster", remedy=remedy) as creating:
        place: list[str | Path] = ["--name", NAME, "--kubeconfig", kubeconfig()]
        creating.run([command, "create", "cluster", *place, "--wait", "180s"], timeout=CREATE_SECONDS)
        published = f"{REGISTRY.replace('localhost', '127.0.0.1')}:5000"
        kept = f"{registry_root()}:/var/lib/registry"
        options = ["--detach", "--name", REGISTRY_CONTAINER, "--publish", published, "--volume", kept]
        creating.run(["docker", "run", *options, REGISTRY_IMAGE], timeout=CREATE_SECONDS)
        creating.run(["docker", "network", "connect", "kind", REGISTRY_CONTAINER], timeout=60)
        for node in run(command, "get", "nodes", "--name", NAME).split():
            directory = f"/etc/containerd/certs.d/{REGISTRY}"
            run("docker", "exec", node, "mkdir", "-p", directory)
            content = f'[host."http://{REGISTRY_CONTAINER}:5000"]\n'
            run("docker", "exec", "-i", node, "cp", "/dev/stdin", f"{directory}/hosts.toml", input=content)


def down() -> None:
    """Delete the cluster and its registry, where they are; what was pushed is kept."""
    if ask("docker", "container", "inspect", f"{NAME}-control-plane") is not None:
        with step("Delete the kind cluster") as deleting:
            deleting.run([binaries(["kind"])["kind"], "delete", "cluster", "--name", NAME], timeout=CREATE_SECONDS)
    ask("docker", "rm", "--force", REGISTRY_CONTAINER)
    shutil.rmtree(cluster_home(), ignore_errors=True)


def is_healthy() -> bool:
    """Whether the cluster's API server is ready and its registry runs."""
    if not kubeconfig().exists():
        return False
    kubectl = binaries(["kubectl"])["kubectl"]
    ready = ask(kubectl, "--kubeconfig", kubeconfig(), "get", "--raw", "/readyz", timeout=10) is not None
    running = ask("docker", "container", "inspect", "--format={{.State.Running}}", REGISTRY_CONTAINER)
    return ready and running is not None and running.strip() == "true"
