"""A limit on the CPU time that a grader takes for one output."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import RowError

SECONDS = 2.0
"""Of CPU time for one output: a pattern may take time that grows exponentially with the text, a metric its square."""
AGAIN_SECONDS = 0.1
MOST_SLOW = 10
"""Outputs of one model that may take so long: those after them are given up at once."""


class OutOfTimeError(Exception):
    """The limit is exceeded."""


class SlowOutputs:
    """Counts the outputs of one model for which one grader takes too long."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Raises RowError for what takes too long inside this context, and at once when too many did."""
        if self._count >= MOST_SLOW:
            details = f"{MOST_SLOW} outputs before this one took more than {SECONDS:g} s each; it was not tried."
            raise RowError(GraderErrorCode.OTHER_ERROR, details)
        try:
            with cpu_limit(SECONDS):
                yield
        except OutOfTimeError as late:
            self._count += 1
            details = (
                f"It took more than {SECONDS:g} s of CPU time for this output; simplify the patterns of its schema, "
                "or shorten the texts that it compares."
            )
            raise RowError(GraderErrorCode.OTHER_ERROR, details) from late


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError inside this context after so many seconds of CPU time, also within `re`.

    It is not the clock's time, so that a busy machine fails no row. Only in the main thread, where signals arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = False

    def stop(number: int, frame: FrameType | None) -> None:
        if not over:
            raise OutOfTimeError

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        # Again and again: what is raised while Python calls a finalizer or collects garbage is lost.
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_SECONDS)
        yield
    finally:
        try:
            over = True
        finally:
            over = True  # where the signal came just before: what it raised goes on from here
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
