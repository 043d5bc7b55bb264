"""Whether the kernel killed a process of this container for its memory."""

from __future__ import annotations

from pathlib import Path

EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
"""The container's own cgroup, version 2 and version 1: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory"""


def count_oom_kills(files: tuple[Path, ...] = EVENTS) -> int:
    """The number of processes killed so far; 0 where the kernel does not show it."""
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for name, _, number in (line.partition(" ") for line in lines):
            if name == "oom_kill":
                return int(number)
    return 0
