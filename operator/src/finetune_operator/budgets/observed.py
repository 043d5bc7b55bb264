"""What is known of a namespace's budget when a plan is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class PodTime:
    """When a Pod had its accelerators."""

    accelerators: int
    start_time: datetime
    end_time: datetime | None
    deleting: bool = False


@dataclass(frozen=True)
class ObservedBudget:
    """What a job's Pods ran, and what its namespace used of the class."""

    ledger_namespace: str
    pods: tuple[PodTime, ...]
    month: str
    class_name: str | None = None
    ledger: Mapping[str, int] | None = None
    """Accelerator seconds of this class and `month` by the jobs' UIDs; None if no decision depends on it."""
