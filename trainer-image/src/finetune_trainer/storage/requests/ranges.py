"""Reads of a part of an object: what its answer must say, so that no other bytes are taken for it.

A gateway or a cache may ignore Range and send the whole object with status 200 (RFC 9110, section 14.2), ignore
If-Match, or know a part but not the whole. S3 itself always says Content-Range and ETag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from finetune_api.conditions import Reason
from finetune_api.sources import S3Location
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.errors import MISSING_CODES, code_of, unsuitable_for_ranges

NO_SUCH_RANGE_CODES = frozenset({"416", "InvalidRange"})
CHANGED_CODES = MISSING_CODES | NO_SUCH_RANGE_CODES | {"412", "PreconditionFailed"}
"""Of a request for a part of what was there when another part was read."""
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


def whole_size(answer: Mapping[str, Any], part: Part, location: S3Location, where: str) -> int:
    """The size of the object of which the answer has `part`, or as much of it as there is.

    A whole object (status 200) that is shorter than what was asked for from the start on is just that. Raises
    DiagnosedError (StorageUnsuitable), and closes the answer, when it has other bytes or does not say which.
    """
    said, length = answer.get("ContentRange"), answer.get("ContentLength")
    is_whole = said is None and answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    if is_whole and part.start == 0 and length is not None and length < part.size:
        return int(length)
    if found := _CONTENT_RANGE.fullmatch(said or ""):
        first, last, total = (int(number) for number in found.groups())
        end = min(part.start + part.size, total)
        if (first, last + 1) == (part.start, end) and length in (None, end - first):
            return total
    answer["Body"].close()
    what = f"with Content-Range: {said[:80]}" if said else "without Content-Range, as if for the whole object"
    raise unsuitable_for_ranges(
        where, f"asked for {part.range} of {location.uri}, it answered {what} and {length} bytes"
    )


def length_of(answer: Mapping[str, Any], location: S3Location, where: str) -> int:
    """The bytes of an object that was asked for as a whole. Raises DiagnosedError (StorageUnsuitable)."""
    length = answer.get("ContentLength")
    if length is None:
        answer["Body"].close()
        raise unsuitable_for_ranges(where, f"it does not say how long {location.uri} is (Content-Length)")
    return int(length)


def version_of(answer: Mapping[str, Any], location: S3Location, where: str) -> str:
    """The ETag of an object that is read in several parts. Raises DiagnosedError (StorageUnsuitable) without one.

    A weak one matches nothing in If-Match (RFC 9110, section 13.1.1).
    """
    etag = str(answer.get("ETag") or "")
    if not etag or etag.startswith("W/"):
        answer["Body"].close()
        what = f"only the weak ETag {etag[:80]}" if etag else "no ETag"
        raise unsuitable_for_ranges(
            where,
            f"it answers {what} for {location.uri}, so that its parts can't be told from those of another version",
        )
    return etag


def changed_while_read(location: S3Location, how: str) -> DiagnosedError:
    """The diagnosis of an object whose parts are not of one version: the next try reads it anew. `how`: it showed."""
    return DiagnosedError(
        Reason.FAILED,
        f"{location.uri} was replaced or removed while it was read ({how}). Let its upload end, and keep it as it is "
        "while a run reads it.",
        retryable=True,
    )


def says_changed(error: ClientError) -> bool:
    """Whether the storage refused a part because the object is not any more what it was."""
    return code_of(error) in CHANGED_CODES
