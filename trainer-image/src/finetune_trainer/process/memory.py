"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that the container's limit leaves; without a limit, half of the node's memory."""
    v2 = (cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat")
    v1 = cgroup / "memory"
    for limit, used, stat in (v2, (v1 / "memory.limit_in_bytes", v1 / "memory.usage_in_bytes", v1 / "memory.stat")):
        if limit.exists() and (text := limit.read_text().strip()) != "max":
            return max(0, min(int(text) - int(used.read_text()) + _reclaimable(stat), _half_of_node()))
    return _half_of_node()


def _reclaimable(stat: Path) -> int:
    """Cached files, which the kernel gives up first; the kubelet counts them as free too."""
    values = dict(line.split() for line in stat.read_text().splitlines())
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


def _half_of_node() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
