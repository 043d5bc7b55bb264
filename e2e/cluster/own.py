"""The local cluster where there is no Docker: a real Kubernetes on this machine, of processes of our own."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

from e2e.cluster import registry
from e2e.cluster.binaries import CONTROL_PLANE, NODE, binaries, version
from e2e.cluster.components import container_runtime, control_plane, dns
from e2e.cluster.components.container_runtime import (
    forget_containers,
    kill_shims,
    remove_outside_files,
    start_container_runtime,
)
from e2e.cluster.components.control_plane import NODE_ADDRESS, ControlPlane
from e2e.cluster.components.dns import start_dns
from e2e.cluster.components.network import create_network, remove_network
from e2e.cluster.components.node import is_ready, start_node, wait_for_node
from e2e.cluster.machine import cgroups, processes
from e2e.cluster.machine.commands import ask
from e2e.cluster.machine.packages import CLUSTER_PACKAGES, ensure_packages
from e2e.cluster.machine.sysctls import allow_forwarding, restore_sysctls, save_sysctls
from e2e.cluster.places import RUN, cluster_home
from e2e.cluster.registry import start_registry
from e2e.steps import step

NODE_PROCESSES = ("kube-proxy", "kubelet", dns.PROCESS, registry.PROCESS)
"""What is stopped before the containers are, in this order."""

KUBELET_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
CONTAINER_LOG_LINKS = Path("/var/log/containers")


def up() -> None:
    """Bring the cluster up. One that is healthy stays as it is; of any other, all traces go first."""
    ensure_packages(CLUSTER_PACKAGES)
    binaries([*CONTROL_PLANE, *NODE])
    if is_healthy():
        return
    home = cluster_home()
    down("it does not run as it should: a process of it ended, its node is not Ready, or its version is another")
    shutil.rmtree(home, ignore_errors=True)
    RUN.mkdir(mode=0o700)  # first of all: it is what tells `down` that there is something to remove
    home.mkdir(parents=True, mode=0o700)
    save_sysctls(home / "sysctls.json")
    allow_forwarding()
    create_network()
    cgroups.create_cgroup()
    with step("Start containerd and the image registry"):
        start_container_runtime(home)
        start_registry(home)
    plane = control_plane.start(home, NODE_ADDRESS)
    with step("Start the node"):
        start_dns(plane)
        start_node(plane)
        wait_for_node(plane)
    (home / "cluster.json").write_text(json.dumps({"server": plane.server, "version": version("kubernetes")}))


def down(why: str = "as asked") -> None:
    """Stop the cluster and remove its processes, containers, mounts, interfaces, rules, settings and state.

    What was downloaded, built and pushed stays in the cache. Does nothing where there is none, even where there is one
    of kind.
    """
    home = cluster_home()
    if not (RUN.exists() or (home / "run").exists()):
        return
    with step(f"Remove the local cluster in {home} ({why})"):
        processes.stop(home, *NODE_PROCESSES)
        cgroups.remove_cgroup()
        if processes.is_running(home, container_runtime.PROCESS):
            forget_containers()
        processes.stop(home, container_runtime.PROCESS, *control_plane.PROCESSES)
        kill_shims()
        _unmount_below(home, RUN)
        remove_network()
        restore_sysctls(home / "sysctls.json")
        remove_outside_files()
        _remove_kubelet_files(home)
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(RUN, ignore_errors=True)


def is_healthy() -> bool:
    """Whether every process is alive, the API server answers and the node is Ready, at the wanted version."""
    marker = cluster_home() / "cluster.json"
    if not marker.exists():
        return False
    started = json.loads(marker.read_text())
    plane = ControlPlane(cluster_home(), started["server"], cluster_home() / "kubeconfig")
    names = (*NODE_PROCESSES, container_runtime.PROCESS)
    alive = all(processes.is_running(plane.home, name) for name in names)
    return alive and started["version"] == version("kubernetes") and control_plane.is_healthy(plane) and is_ready(plane)


def _unmount_below(*directories: Path) -> None:
    """Detach every mount below these, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in points if any(Path(point).is_relative_to(one) for one in directories)]
    for point in reversed(below):
        ask("umount", "--lazy", point)


def _remove_kubelet_files(home: Path) -> None:
    """What kubelet leaves outside its own directory, where no other kubelet uses it."""
    if CONTAINER_LOG_LINKS.is_dir():
        for link in CONTAINER_LOG_LINKS.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(home):
                link.unlink()
    if KUBELET_SOCKET.exists() and not _listens(KUBELET_SOCKET):
        KUBELET_SOCKET.unlink()
    for directory in (CONTAINER_LOG_LINKS, KUBELET_SOCKET.parent, KUBELET_SOCKET.parent.parent):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(str(address))
        except ConnectionRefusedError:
            return False
        return True
