"""Log lines while something long runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

INTERVAL_SECONDS = 5.0

_log = structlog.get_logger()


@contextmanager
def log_progress(
    doing: str, detail: Callable[[], dict[str, object]] = dict, interval: float = INTERVAL_SECONDS
) -> Iterator[None]:
    """Log `doing` at the start, every `interval` seconds, and at the end, with the seconds and `detail()`."""
    started = time.monotonic()
    ended = threading.Event()

    def seconds() -> float:
        return round(time.monotonic() - started, 1)

    def beat() -> None:
        while not ended.wait(interval):
            _log.info(doing, **detail(), seconds=seconds())

    _log.info(doing)
    thread = threading.Thread(target=beat, name="narration", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    _log.info(f"{doing}: done", **detail(), seconds=seconds())
