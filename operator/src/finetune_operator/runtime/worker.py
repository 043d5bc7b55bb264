"""Workers: take keys from the queue, reconcile each with a deadline, and requeue it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.metrics import operator_metrics
from finetune_operator.runtime.reconciler.reconcile import reconcile
from finetune_operator.runtime.workqueue import WorkQueue

RECONCILE_TIMEOUT_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Heartbeats:
    """Since when each worker has been busy, and when each kind was last reconciled without an error."""

    def __init__(self) -> None:
        self._working_since: dict[int, float] = {}
        self.last_success: dict[str, float] = {}
        """Unix time by kind."""

    def started(self, worker: int) -> None:
        """The worker took a key."""
        self._working_since[worker] = time.monotonic()

    def finished(self, worker: int) -> None:
        """The worker is free."""
        self._working_since.pop(worker, None)

    def longest_seconds(self) -> float:
        """How long the slowest worker has been busy with its key."""
        return time.monotonic() - min(self._working_since.values()) if self._working_since else 0.0


async def work(
    worker: int,
    queue: WorkQueue[ObjectKey],
    kube: Kube,
    kinds: Mapping[str, Kind],
    heartbeats: Heartbeats,
    leads: Callable[[], bool],
) -> None:
    """One worker: runs until the queue is shut down, or until this process no longer leads."""
    while (next_key := await queue.get()) is not None:
        key, waited = next_key
        if not leads():
            # E.g. after the whole process was paused: another leader may be writing. The election ends this process.
            queue.done(key)
            return
        operator_metrics.QUEUE_LATENCY.labels(kind=key.kind).observe(waited)
        heartbeats.started(worker)
        try:
            if await _reconcile_once(queue, kube, kinds[key.kind], key):
                heartbeats.last_success[key.kind] = time.time()
        finally:
            heartbeats.finished(worker)
            queue.done(key)


async def _reconcile_once(queue: WorkQueue[ObjectKey], kube: Kube, kind: Kind, key: ObjectKey) -> bool:
    """Reconcile and schedule the next time; returns whether it succeeded."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
            again_after = await reconcile(kube, kind, key)
    except ApiError as error:
        _failed(queue, key, "error", str(error.status), str(error))
    except TimeoutError:
        _failed(queue, key, "error", "timeout", f"not done within {RECONCILE_TIMEOUT_SECONDS:.0f} s")
    except Exception as error:
        # A bug: the other objects must continue, and this one must be noticed.
        log.exception("bug", key=key)
        _failed(queue, key, "bug", "bug", repr(error))
    else:
        queue.forget(key)
        if again_after is not None:
            queue.add_after(key, again_after)
        operator_metrics.RECONCILIATIONS.labels(kind=key.kind, result="ok").inc()
        return True
    finally:
        operator_metrics.RECONCILE_SECONDS.labels(kind=key.kind).observe(time.monotonic() - started)
    return False


def _failed(queue: WorkQueue[ObjectKey], key: ObjectKey, result: str, code: str, error: str) -> None:
    """Retry later, with backoff."""
    delay = queue.add_rate_limited(key)
    log.warning("reconciliation failed", key=key, error=error, retry_seconds=round(delay, 2))
    operator_metrics.RECONCILIATIONS.labels(kind=key.kind, result=result).inc()
    operator_metrics.RECONCILE_ERRORS.labels(kind=key.kind, code=code).inc()
    operator_metrics.QUEUE_RETRIES.labels(kind=key.kind).inc()
