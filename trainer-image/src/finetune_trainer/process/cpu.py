"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """The CPUs of the container's limit, at least 1: torch itself would start a thread for each core of the node."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS
    quota = cpu_quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def cpu_quota(cgroup: Path) -> float | None:
    """The cgroup's CPU limit in cores (version 2's cpu.max, version 1's CFS quota); None where there is none."""
    unified = cgroup / "cpu.max"
    if unified.exists():
        quota, period = unified.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    legacy = cgroup / "cpu"
    if not (legacy / "cpu.cfs_quota_us").exists():
        return None
    microseconds = int((legacy / "cpu.cfs_quota_us").read_text())
    return None if microseconds < 0 else microseconds / int((legacy / "cpu.cfs_period_us").read_text())
