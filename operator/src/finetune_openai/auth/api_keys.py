"""Keys for clients that can't renew a token: SHA-256 digests in a mounted Secret, by ServiceAccount.

The Secret has an entry for each ServiceAccount of the namespace, named after it: lines of `<sha256> [<expiry>]`, where
the expiry is a date and time of RFC 3339. A line that can't be read allows nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from pathlib import Path

KEY_PREFIX = "sk-ft-"
SHORTEST_KEY = 38
"""With 32 random characters, too many to guess."""
_ACCOUNT = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_LARGEST_BYTES = 2**20


def account_of(key: str, folder: Path) -> str | None:
    """The ServiceAccount that a key is for; None for a key that is unknown, expired or too short."""
    if len(key) < SHORTEST_KEY:
        return None
    digest, found = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest(), None
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        # The kubelet's own links begin with two dots.
        if _ACCOUNT.fullmatch(file.name) and file.is_file() and file.stat().st_size <= _LARGEST_BYTES:
            for line in file.read_text(errors="replace").splitlines():
                words = line.split()
                # Every line is compared, however far the first one that fits is.
                if words and hmac.compare_digest(words[0].lower().encode(), digest.encode()) and _is_valid(words[1:]):
                    found = file.name
    return found


def _is_valid(rest: list[str]) -> bool:
    """Whether a key with this after its digest can be used now."""
    if not rest:
        return True
    try:
        expiry = datetime.fromisoformat(rest[0])
    except ValueError:
        return False
    return len(rest) == 1 and expiry.tzinfo is not None and datetime.now(UTC) < expiry
