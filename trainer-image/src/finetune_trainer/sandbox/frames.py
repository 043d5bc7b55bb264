"""Messages between the evaluation, the sandbox and its processes: JSON after its length."""

from __future__ import annotations

import json
import struct
from typing import Any

HEADER = struct.Struct(">I")
MOST_BYTES = 64 * 1024 * 1024
"""Of a row: its texts may be long."""
MOST_REPLY_BYTES = 16 * 1024
"""Of what comes back: a score, or why there is none."""
DETAILS_LENGTH = 500


class FrameError(ValueError):
    """A message that is too long, or none at all."""


def to_frame(message: Any) -> bytes:
    """Raises FrameError for what is no JSON, or too long."""
    try:
        body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError(f"It can't be handed to the code: {error}") from error
    if len(body) > MOST_BYTES:
        raise FrameError(f"It has {len(body):,} bytes as JSON, and may have {MOST_BYTES:,}.")
    return HEADER.pack(len(body)) + body


def length_of(header: bytes, most: int) -> int:
    """The length of the message that follows. Raises FrameError."""
    (length,) = HEADER.unpack(header)
    if length > most:
        raise FrameError(f"a message of {length:,} bytes, of at most {most:,}")
    return int(length)


def from_body(body: bytes) -> dict[str, Any]:
    """Raises FrameError."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError("a message that is not JSON") from error
    if not isinstance(message, dict):
        raise FrameError("a message that is no JSON object")
    return message
