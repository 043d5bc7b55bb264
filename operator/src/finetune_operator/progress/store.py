"""The newest report of each attempt, in memory only: losing it loses nothing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.evaluation import CandidateProgress
from finetune_api.finetunejob import Progress
from finetune_api.pod_contracts.progress import CheckpointReport

STATUS_INTERVAL_SECONDS = 10.0
_ATTEMPTS_KEPT = 10_000


@dataclass(frozen=True)
class ShownProgress:
    """What the reports of an attempt say, as its job's status shows it."""

    progress: Progress | None = None
    checkpoint_report: CheckpointReport | None = None
    """None: its Pods keep none (a user's own image)."""
    candidates: Sequence[CandidateProgress] | None = None
    """Of an evaluation's models."""

    def over(self, before: ShownProgress) -> ShownProgress:
        """With what this report does not mention from the one before it."""
        return ShownProgress(
            self.progress or before.progress,
            self.checkpoint_report or before.checkpoint_report,
            self.candidates or before.candidates,
        )


@dataclass
class _Reports:
    """Of one attempt: what is shown, since when, and the newest."""

    shown: ShownProgress
    shown_since: float
    newest: ShownProgress


class ProgressStore:
    """The reports of each attempt, by the name of its Job; bounded, the least recently updated goes first.

    While an attempt runs, what is shown of it changes at most every ten seconds, however often its Pods report and its
    job is looked at. Once its end is written down, nothing may follow the newest report, which is then shown at once.
    """

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[str, str], _Reports] = OrderedDict()

    def put(self, namespace: str, attempt: str, reported: ShownProgress) -> float:
        """Remember a report; returns in how many seconds it can be shown."""
        now, key = time.monotonic(), (namespace, attempt)
        reports = self._reports.get(key)
        if reports is None:
            reports = self._reports[key] = _Reports(reported, now, reported)
        else:
            reports.newest = reported.over(reports.newest)
        self._reports.move_to_end(key)
        if len(self._reports) > _ATTEMPTS_KEPT:
            self._reports.popitem(last=False)
        return _seconds_to_newest(reports) or 0.0

    def shown(self, namespace: str, attempt: str, *, is_running: bool = True) -> ShownProgress | None:
        """What to show of an attempt, if a report came since the operator started."""
        reports = self._reports.get((namespace, attempt))
        if reports is None:
            return None
        wait = _seconds_to_newest(reports)
        if wait is not None and (wait == 0 or not is_running):
            reports.shown, reports.shown_since = reports.newest, time.monotonic()
        return reports.shown

    def seconds_until_newer(self, namespace: str, attempt: str) -> float | None:
        """In how many seconds a newer report than the one that is shown can be; None where there is none."""
        reports = self._reports.get((namespace, attempt))
        return None if reports is None else _seconds_to_newest(reports)


def _seconds_to_newest(reports: _Reports) -> float | None:
    if reports.shown == reports.newest:
        return None
    return max(0.0, reports.shown_since + STATUS_INTERVAL_SECONDS - time.monotonic())
