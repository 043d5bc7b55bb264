"""Kernel settings that a node changes, and how they come back."""

from __future__ import annotations

import json
from pathlib import Path

FORWARDING = "net/ipv4/ip_forward"
CHANGED = (
    FORWARDING,
    # kubelet sets these (kernel tunables of its container manager).
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def save_sysctls(file: Path, root: Path = Path("/proc/sys")) -> None:
    """Write down the settings as they are now."""
    file.write_text(json.dumps({name: (root / name).read_text().strip() for name in CHANGED}))


def restore_sysctls(file: Path, root: Path = Path("/proc/sys")) -> None:
    """Set what differs from what was written down; nothing where nothing was."""
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        if (root / name).read_text().strip() != value:
            (root / name).write_text(value)


def allow_forwarding(root: Path = Path("/proc/sys")) -> None:
    """Let packets pass between Pods and the rest of the world."""
    (root / FORWARDING).write_text("1")
