"""What the gateways report is added to the status, each batch once, and only of the step that is under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from finetune_api.modeldeployment import (
    MOST_BUCKETS,
    MOST_COUNT,
    MOST_SOURCES,
    CanaryStatus,
    RequestCounts,
    TrafficCounts,
    TrafficReport,
    TrafficSource,
)

_ENDS = ("requests", "errors", "refused", "left")


def counted(canary: CanaryStatus, reports: Iterable[TrafficReport]) -> CanaryStatus:
    """The status with every batch that follows the last one of its source. What was added and its number are one write:
    a batch that is sent again, or was seen by another operator, has a number that is known."""
    for report in reports:
        canary = _with_report(canary, report)
    return canary


def _with_report(canary: CanaryStatus, report: TrafficReport) -> CanaryStatus:
    batch = report.batch
    if batch is None or not canary.split or report.split != canary.split:
        return canary
    known = {one.source: one.sequence for one in canary.sources}
    is_next = batch.sequence == known.get(report.source, 0) + 1
    if not is_next or (report.source not in known and len(known) >= MOST_SOURCES):
        return canary
    known[report.source] = batch.sequence
    return canary.model_copy(
        update={
            "stable": _sum(canary.stable, batch.stable),
            "canary": _sum(canary.canary, batch.canary),
            "recent_stable": _ends(canary.recent_stable, batch.stable),
            "recent_canary": _ends(canary.recent_canary, batch.canary),
            "sources": [TrafficSource(source=source, sequence=number) for source, number in known.items()],
        }
    )


def _sum(before: TrafficCounts, more: TrafficCounts) -> TrafficCounts:
    sums = _added(before, more, (*_ENDS, "answers", "tokens", "token_squares"))
    buckets = {name: _merged(getattr(before, name), getattr(more, name)) for name in ("first_token", "per_token")}
    return TrafficCounts(**sums, **buckets)


def _ends(before: RequestCounts, more: RequestCounts) -> RequestCounts:
    return RequestCounts(**_added(before, more, _ENDS))


def _added(before: RequestCounts, more: RequestCounts, names: Iterable[str]) -> dict[str, int]:
    return {name: min(getattr(before, name) + getattr(more, name), MOST_COUNT) for name in names}


def _merged(before: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    total = Counter(before) + Counter(more)
    kept = sorted(total.most_common(MOST_BUCKETS), key=lambda one: int(one[0]))
    return {bucket: min(count, MOST_COUNT) for bucket, count in kept}
