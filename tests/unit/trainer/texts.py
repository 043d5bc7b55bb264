"""Texts that are unlike each other."""

from __future__ import annotations

import hashlib


def words(seed: int, count: int) -> str:
    """So many words, which follow from the seed."""
    return " ".join(hashlib.sha256(f"{seed}/{at}".encode()).hexdigest()[:8] for at in range(count))
