"""Corrects times that a wrong clock wrote, since deadline and TTL are computed from them.

Only times that contradict the API server's own are corrected. An operator whose clock is behind those corrects nothing:
to it, every time from a correct clock would seem to be in the future.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from finetune_api.base import whole_seconds
from finetune_api.lifecycle import RunStatus

SKEW = timedelta(minutes=1)
"""The maximum difference between the clocks of a cluster."""
Status = TypeVar("Status", bound=RunStatus)


@dataclass(frozen=True)
class ServerTimes:
    """What only the API server writes: when an object was created, and its children, and its status was written."""

    created: datetime | None
    children_created: tuple[datetime, ...]
    status_written: datetime | None

    @property
    def newest_creation(self) -> datetime | None:
        """The newest creationTimestamp."""
        return max((moment for moment in (self.created, *self.children_created) if moment is not None), default=None)

    def proves_clock_slow(self, now: datetime) -> bool:
        """Whether `now` is earlier than a time that the API server already wrote, by more than clocks may differ."""
        moments = (self.newest_creation, self.status_written)
        return any(moment is not None and moment > now + SKEW for moment in moments)

    def no_earlier(self, now: datetime) -> datetime:
        """Now, or the newest creationTimestamp if the clock that says `now` is behind it."""
        return max(now, self.newest_creation or now)


def at_most(moment: datetime, now: datetime) -> datetime:
    """The moment, or now if it can't be."""
    return now if moment > now + SKEW else moment


def with_possible_start(
    status: Status, times: ServerTimes, now: datetime, earlier_ends: Iterable[datetime | None] = ()
) -> Status:
    """Bound the start time by the object's creation, and the suspended time by the time since the start.

    `earlier_ends`: when runs before this one ended.
    """
    start, seconds = status.start_time, max(0, status.suspended_seconds)
    if start is not None:
        start = at_most(start, now)
        if times.created is not None and start < times.created - SKEW:
            start = max([times.created, *(end for end in earlier_ends if end is not None and end <= now)])
        lasted = max(timedelta(0), now - start)
        seconds = round(lasted.total_seconds()) if seconds > (lasted + SKEW).total_seconds() else seconds
    return status.model_copy(update={"start_time": start, "suspended_seconds": seconds})


def with_possible_end(status: Status, times: ServerTimes, now: datetime) -> Status:
    """Replace an impossible completion time by now, so that the Pods are kept for the whole TTL."""
    end, begins = status.completion_time, [times.created, status.start_time]
    is_early = end is not None and any(begin is not None and end < begin - SKEW for begin in begins)
    is_odd = is_early or (end is not None and end > now + SKEW)
    return status.model_copy(update={"completion_time": now}) if is_odd else status


def with_possible_times(status: Status, times: ServerTimes, now: datetime) -> Status:
    """The status of a run without times that can't be; the same one while this clock is behind the API server's."""
    now = whole_seconds(now)
    if times.proves_clock_slow(now):
        return status
    return (with_possible_start if status.completion_time is None else with_possible_end)(status, times, now)
