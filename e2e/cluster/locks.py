"""One run at a time changes what all runs on this machine share."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.steps import step


@contextlib.contextmanager
def exclusive(
    lock: Path, *, timeout: float, what: str = "Wait for another run that is doing the same"
) -> Iterator[None]:
    """Hold the lock file `lock`; wait up to `timeout` seconds for another run or thread, then raise StepFailed.

    The kernel releases it when the process ends, however it ends; a child must not inherit it (Python's
    descriptors are close-on-exec).
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if not _locked(file.fileno()):
            deadline = time.monotonic() + timeout
            with step(what) as waiting:
                while not _locked(file.fileno()):
                    if time.monotonic() > deadline:
                        raise waiting.failure(f"{lock} is still held after {timeout:.0f} s")
                    time.sleep(0.2)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
