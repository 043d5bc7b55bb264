"""The bodies of requests and responses, with a minimum transfer rate.

Botocore's read timeout ends silent connections. Slow ones are ended here: a body gets the time of one read timeout
plus its size at SLOWEST_BYTES_PER_SECOND; after that the request is retried on a new connection.
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
"""Passed to the socket at a time; on a new connection each must be sent within CONNECT_TIMEOUT_SECONDS."""


class PacedBody(io.BytesIO):
    """The body of a request.

    It returns more than requested: urllib3 would send only 16 KiB at a time and wait for the GIL each time.
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

    It reads from the socket directly into `target`: botocore's and urllib3's methods copy the bytes through Python
    objects, which doubles the time of a download. Raises IncompleteReadError if there are fewer bytes,
    ResponseStreamingError, TooSlowError.
    """
    answer = body._raw_stream  # urllib3's response, which wraps http.client's
    received = 0
    if not answer._fp.isclosed():  # It is closed if there is no body.
        slow = threading.Timer(_longest_seconds(len(target)), _shut_down, [answer._fp.fp.raw._sock])
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


def _shut_down(connection: socket.socket) -> None:
    """Close a connection that another thread reads from."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
