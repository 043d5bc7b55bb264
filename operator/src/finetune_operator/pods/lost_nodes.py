"""Pods of lost nodes, which are deleted and never end."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_operator.pods.observed import PodView

LOST_POD_SECONDS = 180
"""A Pod of a lost node stays Terminating for ever. So long after its grace period nobody waits for it any more: what it
may still write goes into a folder of its own, and the next attempt's claim on the run shuts it out."""


def lost_time(pod: PodView) -> datetime | None:
    """Until when a Pod that is being deleted is waited for; None for one that is not."""
    return None if pod.deletion_time is None else pod.deletion_time + timedelta(seconds=LOST_POD_SECONDS)


def is_lost(pod: PodView, now: datetime) -> bool:
    """Whether a Pod has not ended long after it had to."""
    until = lost_time(pod)
    return not pod.ended and until is not None and now >= until
