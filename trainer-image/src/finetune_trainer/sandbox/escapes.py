"""What the self-test tries in a process of the sandbox, as the code of a grader. Read as text, and never imported.

`grade` returns 1 where nothing succeeded, and otherwise raises with the names of what did.
"""

import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Item: the `file` that must not be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    architecture = 0 if os.uname().machine == "x86_64" else 1
    file = Path(item["file"])

    def call(numbers: tuple[int, int], *arguments: object) -> None:
        if libc.syscall(numbers[architecture], *arguments) < 0:
            raise OSError(ctypes.get_errno(), "denied")

    attempts: dict[str, Callable[[], object]] = {
        "reading a file": file.read_bytes,
        "reading /proc": Path("/proc/self/status").read_bytes,
        "writing a file": lambda: file.with_suffix(".new").write_bytes(b"x"),
        "a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "a Unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "another process": os.fork,
        "another program": lambda: os.execv("/bin/sh", ["/bin/sh", "-c", "exit 7"]),  # noqa: S606
        "a signal": lambda: os.kill(os.getppid(), 0),
        "ptrace": lambda: call((101, 117), 16, os.getppid(), 0, 0),
        "another process's memory": lambda: call((310, 270), os.getppid(), 0, 0, 0, 0, 0),
        "a namespace": lambda: call((272, 97), 0x10000000),
        "io_uring": lambda: call((425, 425), 1, ctypes.create_string_buffer(120)),
        "two GiB of memory": lambda: bytearray(2 * 1024**3),
    }
    holes = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, MemoryError):
            continue
        holes.append(name)
    if holes:
        raise AssertionError(", ".join(holes))
    return 1.0
