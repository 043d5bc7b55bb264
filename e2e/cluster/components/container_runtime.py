"""containerd of our own, beside one that the machine may have: own files, own socket, own state.

Images are kept between clusters (places.containerd_root); containers are not.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from e2e.cluster.components.network import NETWORK, cni_config
from e2e.cluster.components.pause_image import IMAGE, write_pause_image
from e2e.cluster.machine import processes
from e2e.cluster.machine.commands import ask, run
from e2e.cluster.places import RUN, containerd_root

PROCESS = "containerd"
STATE = RUN / "containerd"
SOCKET = STATE / "containerd.sock"
CNI_PLUGINS = Path("/usr/lib/cni")
CNI_RESULTS = Path("/var/lib/cni/results")

CONFIG = """
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
netns_mounts_under_state_dir = true
# Without CAP_SYS_RESOURCE (containers, small VMs) runc can't make a process less killable than containerd is.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
discard_unpacked_layers = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{runc}"
SystemdCgroup = false
"""


def start_container_runtime(home: Path) -> None:
    """Start containerd, with no container in it and the pause image at hand."""
    networks = RUN / "cni"
    networks.mkdir(parents=True)
    (networks / "10-bridge.conflist").write_text(cni_config(RUN / "cni-addresses"))
    config = home / "containerd.toml"
    config.write_text(
        CONFIG.format(
            root=containerd_root(),
            state=STATE,
            socket=SOCKET,
            pause=IMAGE,
            plugins=CNI_PLUGINS,
            networks=networks,
            snapshotter=_snapshotter(),
            runc=RUN / "runc",
        )
    )
    _start(home, config)
    if forget_containers():  # left by a cluster that was killed; containerd has read them by now
        processes.stop(home, PROCESS)
        _start(home, config)
    archive = home / "pause.tar"
    write_pause_image(archive)
    _ctr("images", "import", archive)


def forget_containers() -> int:
    """Remove all records of containers, of which no process may be left; return how many there were."""
    listed = ask(*_ctr_command("containers", "list", "-q")) or ""
    ids = listed.split()
    if ids:
        ask(*_ctr_command("tasks", "delete", "--force", *ids))
        _ctr("containers", "delete", *ids)
    return len(ids)


def kill_shims(proc: Path = Path("/proc")) -> None:
    """Kill what supervises containers: the processes that were told of our containerd's socket."""
    for directory in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if is_shim(words):
                os.kill(int(directory.name), signal.SIGKILL)


def remove_outside_files() -> None:
    """What containerd keeps of each container outside its own directories: the shim's socket, the CNI's results."""
    for address in STATE.glob("io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    for result in CNI_RESULTS.glob(f"{NETWORK}-*-eth0"):
        pod = result.name.removeprefix(f"{NETWORK}-").removesuffix("-eth0")
        (CNI_RESULTS / f"cni-loopback-{pod}-lo").unlink(missing_ok=True)
        result.unlink()
    if CNI_RESULTS.is_dir() and not any(CNI_RESULTS.iterdir()):
        CNI_RESULTS.rmdir()


def is_shim(words: list[str]) -> bool:
    """Whether these are the command line of a shim of our containerd."""
    return Path(words[0]).name.startswith("containerd-shim") and str(SOCKET) in words


def _start(home: Path, config: Path) -> None:
    processes.start(home, PROCESS, ["containerd", "--config", config])
    command = _ctr_command("version")
    processes.wait_until(
        lambda: SOCKET.exists() and ask(*command) is not None,
        "containerd",
        home=home,
        needs=[PROCESS],
        timeout=30,
    )


def _snapshotter() -> str:
    """overlayfs, but for a machine that is itself a container on overlayfs, which can't be stacked."""
    root = containerd_root()
    root.mkdir(parents=True, exist_ok=True)
    return "native" if run("stat", "--file-system", "--format=%T", root).strip() == "overlayfs" else "overlayfs"


def _ctr_command(*words: str | Path) -> list[str | Path]:
    return ["ctr", "--address", SOCKET, "--namespace", "k8s.io", *words]


def _ctr(*words: str | Path) -> str:
    return run(*_ctr_command(*words))
