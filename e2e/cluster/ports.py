"""Free TCP ports."""

from __future__ import annotations

import contextlib
import random
import socket

# Below Linux's ephemeral ports, which an outgoing connection may take before a server binds one.
FIRST, LAST = 12000, 32000


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """`count` different ports that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(range(FIRST, LAST), LAST - FIRST):
            if len(found) == count:
                break
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((address, port))
                found.append(port)
        return found
