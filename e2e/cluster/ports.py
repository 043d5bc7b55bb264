"""Free TCP ports."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

# Below Linux's ephemeral ports, which an outgoing connection may take before a server binds one.
FIRST, LAST = 12000, 32000
_given: set[int] = set()
_one_at_a_time = threading.Lock()


def free_ports(count: int) -> list[int]:
    """`count` ports that nobody listens on right now, at any address.

    None is given twice: who got one may start to listen later, or stop for a while.
    """
    found: list[int] = []
    with _one_at_a_time:
        for port in random.sample(range(FIRST, LAST), LAST - FIRST):
            if len(found) == count:
                break
            with contextlib.suppress(OSError), socket.socket() as one:
                one.bind(("", port))
                if port not in _given:
                    _given.add(port)
                    found.append(port)
    return found
