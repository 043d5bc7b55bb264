"""Range requests: checks that the response has exactly the requested bytes.

A gateway or cache may ignore Range and send the whole object with status 200 (RFC 9110, section 14.2), ignore
If-Match, or omit the total size. S3 itself always sends Content-Range and ETag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.errors import MISSING_CODES, code_of, unsuitable_for_ranges

NO_SUCH_RANGE_CODES = frozenset({"416", "InvalidRange"})
CHANGED_CODES = MISSING_CODES | NO_SUCH_RANGE_CODES | {"412", "PreconditionFailed"}
"""Errors that mean that the object has changed since an earlier part was read."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


@dataclass(frozen=True)
class Part:
    """A range of a file: bytes from `start`."""

    start: int
    size: int

    @property
    def range(self) -> str:
        """The value of the header Range."""
        return f"bytes={self.start}-{self.start + self.size - 1}"


def total_size(answer: Mapping[str, Any], part: Part, location: StorageLocation, where: str) -> int:
    """The size of the whole object, of which the response has `part` or as much of it as exists.

    A whole object (status 200) is accepted if it is shorter than a part that starts at 0. Raises DiagnosedError
    (StorageUnsuitable), and closes the response, if it has other bytes or does not tell which.
    """
    content_range, length = answer.get("ContentRange"), answer.get("ContentLength")
    is_whole = content_range is None and answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    if is_whole and part.start == 0 and length is not None and length < part.size:
        return int(length)
    if found := _CONTENT_RANGE.fullmatch(content_range or ""):
        first, last, total = (int(number) for number in found.groups())
        end = min(part.start + part.size, total)
        if (first, last + 1) == (part.start, end) and length in (None, end - first):
            return total
    answer["Body"].close()
    header = f"Content-Range: {content_range[:80]}" if content_range else "no Content-Range, as for a whole object,"
    raise unsuitable_for_ranges(
        where, f"it answered a request for {part.range} of {location.uri} with {header} and {length} bytes"
    )


def length_of(answer: Mapping[str, Any], location: StorageLocation, where: str) -> int:
    """The size of an object that was requested as a whole. Raises DiagnosedError (StorageUnsuitable) without one."""
    length = answer.get("ContentLength")
    if length is None:
        answer["Body"].close()
        raise unsuitable_for_ranges(where, f"it does not send the size of {location.uri} (Content-Length)")
    return int(length)


def version_of(answer: Mapping[str, Any], location: StorageLocation, where: str) -> str:
    """The ETag of an object that is read in several parts. Raises DiagnosedError (StorageUnsuitable) without one.

    A weak one never matches in If-Match (RFC 9110, section 13.1.1).
    """
    etag = str(answer.get("ETag") or "")
    if not etag or etag.startswith("W/"):
        answer["Body"].close()
        header = f"only the weak ETag {etag[:80]}" if etag else "no ETag"
        raise unsuitable_for_ranges(
            where,
            f"it sends {header} for {location.uri}, so that parts of different versions can't be told apart",
        )
    return etag


def changed_while_read(location: StorageLocation, how: str) -> DiagnosedError:
    """The diagnosis of an object that changed between two parts, so that it is read again. `how`: the evidence."""
    return DiagnosedError(
        Reason.FAILED,
        f"{location.uri} was replaced or removed while it was read ({how}). Finish its upload first, and do not change "
        "it while a run reads it.",
        retryable=True,
    )


def is_changed(error: ClientError) -> bool:
    """Whether the storage rejected a part because the object has changed."""
    return code_of(error) in CHANGED_CODES
