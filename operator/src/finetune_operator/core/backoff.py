"""The delays between retries: exponential, up to ten minutes. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST_DELAY_SECONDS = 10
LONGEST_DELAY_SECONDS = 600


def retry_delay_seconds(failures: int) -> int:
    """10 s after the first failure, twice as long after each further one, ten minutes at most."""
    return delay_seconds(failures, first=FIRST_DELAY_SECONDS, longest=LONGEST_DELAY_SECONDS)


def delay_seconds(times: int, *, first: int, longest: int) -> int:
    """`first` seconds after the first time, twice as long after each further one, `longest` at most."""
    doublings: int = min(max(times - 1, 0), 16)
    return min(longest, first << doublings)


def waits(until: datetime | None, now: datetime) -> bool:
    """Whether a retry is still to be waited for. What is further away than any delay was written by a wrong clock."""
    return until is not None and now < until <= now + timedelta(seconds=LONGEST_DELAY_SECONDS)
