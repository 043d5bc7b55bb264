"""Exponential backoff between retries."""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST_DELAY_SECONDS = 10
LONGEST_DELAY_SECONDS = 600


def retry_delay_seconds(failures: int) -> int:
    """10 s after the first failure, twice as long after each further one, ten minutes at most."""
    doublings: int = min(max(failures - 1, 0), 16)
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS << doublings)


def waits(until: datetime | None, now: datetime) -> bool:
    """Whether a retry is still to be waited for. What is further away than any delay was written by a wrong clock."""
    return until is not None and now < until <= now + timedelta(seconds=LONGEST_DELAY_SECONDS)
