"""How much a process of the sandbox may use."""

from __future__ import annotations

MEMORY_BYTES = 2 * 1024**3
"""Of address space, as OpenAI gives its graders."""
MOST_FILE_BYTES = 64 * 1024**2
"""Of one file; the folder as a whole is bounded by its volume."""
MOST_FILES = 128
"""Open at a time."""
MOST_THREADS = 256
"""Of the user, in all containers of the node: only the sandboxes have this user."""
CORES = 2
CPU_MARGIN_SECONDS = 10


LIFETIME_SECONDS = 60


def lifetime_seconds(timeout_seconds: int) -> int:
    """After how long a process gets no more rows, so that its CPU time is bounded."""
    return max(LIFETIME_SECONDS, timeout_seconds)


def cpu_seconds(timeout_seconds: int) -> int:
    """Of CPU time for a process that grades until its lifetime is over: the watchdog ends it before, if it works."""
    return CORES * (lifetime_seconds(timeout_seconds) + timeout_seconds) + CPU_MARGIN_SECONDS
