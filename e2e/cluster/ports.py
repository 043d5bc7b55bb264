"""Free TCP ports."""

from __future__ import annotations

import contextlib
import socket


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """`count` different ports that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((address, 0))
        return [one.getsockname()[1] for one in sockets]
