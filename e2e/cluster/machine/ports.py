"""Free TCP ports, each for one process of this machine.

Between the gift of a port and its use others look for ports too: a second run of the tests, or another worker of this
one. So each process locks the bytes of one file that stand for its ports; the kernel frees them when it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import threading

from e2e.cache import cache_dir

# Below Linux's ephemeral ports, which an outgoing connection may take before a server binds one.
FIRST, LAST = 12000, 32000
_given: set[int] = set()
_one_at_a_time = threading.Lock()


def free_ports(count: int) -> list[int]:
    """`count` ports that nobody listens on right now, at any address.

    None is given twice, be it to other processes: who got one may start to listen later, or stop for a while.
    """
    found: list[int] = []
    taken = _taken()
    with _one_at_a_time:
        for port in random.sample(range(FIRST, LAST), LAST - FIRST):
            if len(found) == count:
                break
            with contextlib.suppress(OSError), socket.socket() as one:
                one.bind(("", port))
                if port not in _given:
                    fcntl.lockf(taken, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                    _given.add(port)
                    found.append(port)
    return found


@functools.cache
def _taken() -> int:
    """The file whose bytes are locked, open for good: closing it would free them all."""
    file = cache_dir() / "ports.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
