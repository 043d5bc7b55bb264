"""The newest report of each attempt, in memory only: losing it loses nothing."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from finetune_api.finetunejob import Progress
from finetune_api.progress import (
    CheckpointLedger,
)

STATUS_INTERVAL_SECONDS = 10.0
_ATTEMPTS_KEPT = 10_000


@dataclass(frozen=True)
class ShownProgress:
    """What the reports of an attempt say, as its job's status shows it."""

    progress: Progress | None = None
    ledger: CheckpointLedger | None = None
    """None: its Pods keep none (a user's own image)."""


@dataclass
class _Reports:
    """Of one attempt: what is shown, since when, and the newest."""

    shown: ShownProgress
    shown_since: float
    newest: ShownProgress


class ProgressStore:
    """The reports of each attempt, by the name of its Job; bounded, the least recently updated goes first.

    What is shown changes at most every ten seconds, however often a Pod reports and a job is looked at.
    """

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[str, str], _Reports] = OrderedDict()

    def put(
        self, namespace: str, attempt: str, progress: Progress | None, ledger: CheckpointLedger | None = None
    ) -> float:
        """Remember a report; returns in how many seconds it can be shown. None: it says nothing about that."""
        now, key = time.monotonic(), (namespace, attempt)
        reports = self._reports.get(key)
        if reports is None:
            first = ShownProgress(progress, ledger)
            reports = self._reports[key] = _Reports(first, now, first)
        else:
            before = reports.newest
            reports.newest = ShownProgress(progress or before.progress, ledger or before.ledger)
        self._reports.move_to_end(key)
        if len(self._reports) > _ATTEMPTS_KEPT:
            self._reports.popitem(last=False)
        return 0.0 if reports.shown == reports.newest else max(0.0, reports.shown_since + STATUS_INTERVAL_SECONDS - now)

    def shown(self, namespace: str, attempt: str) -> ShownProgress | None:
        """What to show of an attempt, if a report came since the operator started."""
        reports = self._reports.get((namespace, attempt))
        if reports is None:
            return None
        if reports.shown != reports.newest and time.monotonic() >= reports.shown_since + STATUS_INTERVAL_SECONDS:
            reports.shown, reports.shown_since = reports.newest, time.monotonic()
        return reports.shown
