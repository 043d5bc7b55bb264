"""Workers: take keys from the queue, reconcile each with a deadline, decide when it comes again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from finetune_operator import metrics
from finetune_operator.kube import ApiError, Kube
from finetune_operator.reconcile import Reconciler, reconcile
from finetune_operator.references import ObjectKey
from finetune_operator.workqueue import WorkQueue

RECONCILE_TIMEOUT_SECONDS = 60.0
STUCK_AFTER_SECONDS = 180.0

log = structlog.get_logger(__name__)


class Heartbeats:
    """When each worker last came round; tells the liveness probe of one that is stuck."""

    def __init__(self) -> None:
        self._working_since: dict[int, float] = {}

    def started(self, worker: int) -> None:
        """The worker took a key."""
        self._working_since[worker] = time.monotonic()

    def finished(self, worker: int) -> None:
        """The worker is free."""
        self._working_since.pop(worker, None)

    def longest_seconds(self) -> float:
        """How long the slowest worker has been at its key."""
        return time.monotonic() - min(self._working_since.values()) if self._working_since else 0.0


async def work(
    worker: int,
    queue: WorkQueue[ObjectKey],
    kube: Kube,
    reconcilers: Mapping[str, Reconciler],
    heartbeats: Heartbeats,
) -> None:
    """One worker: runs until it is cancelled."""
    while True:
        key, waited = await queue.get()
        metrics.QUEUE_LATENCY.labels(kind=key.kind).observe(waited)
        heartbeats.started(worker)
        try:
            await _reconcile_once(queue, kube, reconcilers[key.kind], key)
        finally:
            heartbeats.finished(worker)
            queue.done(key)


async def _reconcile_once(queue: WorkQueue[ObjectKey], kube: Kube, reconciler: Reconciler, key: ObjectKey) -> None:
    started = time.monotonic()
    result = "ok"
    try:
        async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
            again_after = await reconcile(kube, reconciler, key)
    except (ApiError, TimeoutError) as error:
        result = "error"
        delay = queue.add_rate_limited(key)
        log.warning("reconciliation failed", key=key, error=str(error) or "timed out", retry_seconds=round(delay, 2))
    except Exception:
        # A bug: the other objects must go on, and this one must be seen.
        result = "bug"
        delay = queue.add_rate_limited(key)
        log.exception("reconciliation failed", key=key, retry_seconds=round(delay, 2))
    else:
        queue.forget(key)
        if again_after is not None:
            queue.add_after(key, again_after)
    metrics.RECONCILIATIONS.labels(kind=key.kind, result=result).inc()
    metrics.RECONCILE_SECONDS.labels(kind=key.kind).observe(time.monotonic() - started)
