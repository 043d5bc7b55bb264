"""What the gateways of ModelDeployments counted and the status does not have yet, and what they are answered.

Both are in memory only: a gateway sends its batch until the answer says that the status has it, and gets only what the
status says.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api.modeldeployment import MOST_SOURCES, CanaryStatus, TrafficReport
from finetune_operator.core.references import ObjectKey

COUNT_SECONDS = 3.0
"""A status is written at most so often on account of what is counted, but for an outage."""
_KEPT_SECONDS = 60.0
_OWNERS_KEPT = 10_000


@dataclass(frozen=True)
class PublishedTraffic:
    """What gateways are answered. `counted`: the last batch of each source that the status has."""

    split: Mapping[str, Any] | None = None
    counted: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _OfOwner:
    published: PublishedTraffic | None = None
    reports: dict[str, tuple[float, TrafficReport]] = field(default_factory=dict)


class TrafficStore:
    """By the ModelDeployment; bounded, the one that was used least recently goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owners: OrderedDict[ObjectKey, _OfOwner] = OrderedDict()

    def publish(self, owner: ObjectKey, canary: CanaryStatus | None) -> None:
        """Its status says this."""
        if canary is None or not canary.split:
            published = PublishedTraffic()
        else:
            split = {"id": canary.split, "salt": canary.revision, "percent": canary.percent}
            published = PublishedTraffic(split, {one.source: one.sequence for one in canary.sources})
        self._of(owner).published = published

    def published(self, owner: ObjectKey) -> PublishedTraffic | None:
        """What its gateways are answered; None: its status has not been read yet."""
        return self._of(owner).published

    def put(self, owner: ObjectKey, report: TrafficReport) -> float | None:
        """Remember a batch until it is counted; returns in how many seconds it may be, None: there is nothing to."""
        if report.batch is None:
            return None
        reports = self._fresh(owner)
        if report.source not in reports and len(reports) >= MOST_SOURCES:
            return None
        reports[report.source] = (self._clock(), report)
        its = report.batch.canary
        return 0.0 if (its.errors + its.refused + its.left) * 4 >= its.requests > 0 else COUNT_SECONDS

    def reports(self, owner: ObjectKey) -> tuple[TrafficReport, ...]:
        """The batches that came lately."""
        return tuple(report for _, report in self._fresh(owner).values())

    def _fresh(self, owner: ObjectKey) -> dict[str, tuple[float, TrafficReport]]:
        found, now = self._of(owner), self._clock()
        found.reports = {name: one for name, one in found.reports.items() if now - one[0] < _KEPT_SECONDS}
        return found.reports

    def _of(self, owner: ObjectKey) -> _OfOwner:
        found = self._owners.setdefault(owner, _OfOwner())
        self._owners.move_to_end(owner)
        if len(self._owners) > _OWNERS_KEPT:
            self._owners.popitem(last=False)
        return found
