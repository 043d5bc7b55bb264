"""The bodies of requests and responses, with a minimum transfer rate.

Botocore's read timeout ends a silence. What trickles on is ended here: a body gets the time of one silence and that
of SLOWEST_BYTES_PER_SECOND, and then the request is tried again on a new connection.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from typing import Any

from botocore.exceptions import IncompleteReadError, ResponseStreamingError

from finetune_trainer.storage.client import READ_TIMEOUT_SECONDS
from finetune_trainer.storage.errors import TooSlowError

SLOWEST_BYTES_PER_SECOND = 64 * 2**10
SENT_BYTES = 2**18
"""Handed to the socket at a time; it has CONNECT_TIMEOUT_SECONDS for each on a new connection."""


class PacedBody(io.BytesIO):
    """The body of a request.

    It gives more than it is asked for: urllib3 would send 16 KiB at a time, and each time wait for the interpreter's
    lock.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._deadline = time.monotonic() + _longest_seconds(len(body))

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise TooSlowError(bytes_per_second=SLOWEST_BYTES_PER_SECOND)
        return super().read(size if size is None or size < 0 else max(size, SENT_BYTES))


def read_all(body: Any, size: int) -> bytes:
    """The body of a response that has `size` bytes. Raises as `read_into` does."""
    content = bytearray(size)
    read_into(body, memoryview(content))
    return bytes(content)


def read_into(body: Any, target: memoryview) -> None:
    """Fill `target` from the body of a response.

    The socket's bytes go straight into `target`, below botocore's and urllib3's own methods: those copy them through
    Python objects, which doubles the time of a download. Raises IncompleteReadError when there are fewer,
    ResponseStreamingError, TooSlowError.
    """
    answer = body._raw_stream  # urllib3's, and below it http.client's
    received = 0
    if not answer._fp.isclosed():  # it is, where there is no body
        slow = threading.Timer(_longest_seconds(len(target)), _shut, [answer._fp.fp.raw._sock])
        slow.daemon = True
        slow.start()
        try:
            received = answer._fp.readinto(target)
        except OSError as error:
            raise ResponseStreamingError(error=error) from error
        finally:
            too_slow = slow.finished.is_set()
            slow.cancel()
            if answer._fp.isclosed() and not too_slow:
                answer.release_conn()
            else:
                answer.close()
        if too_slow:
            raise TooSlowError(bytes_per_second=SLOWEST_BYTES_PER_SECOND)
    if received < len(target):
        raise IncompleteReadError(actual_bytes=received, expected_bytes=len(target))


def _longest_seconds(size: int) -> float:
    return READ_TIMEOUT_SECONDS + size / SLOWEST_BYTES_PER_SECOND


def _shut(connection: socket.socket) -> None:
    """Close a connection that another thread reads from."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
