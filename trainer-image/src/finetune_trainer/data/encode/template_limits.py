"""Limits on the CPU time and memory of rendering a chat template.

Templates run in Jinja's sandbox, which bounds what they can reach but not for how long they loop, nor how long a text
they make. The limits are the kernel's. They stand only in the main thread of the process, where signals arrive: that
is where preflight renders every line before any training does.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError

SECONDS = 10.0
BYTES = 512 * 2**20
_AT_ONCE = 1e-3  # 0 would stop the timer
_STATM = "/proc/self/statm"
_timed = False
"""Whether the timer runs: Python takes longer to say whose handler stands."""


class TemplateLimitError(DiagnosedError):
    """The chat template exceeded its limits: no example can be rendered with it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            Reason.MODEL_INVALID,
            f"The model's chat template took more than {what}, and was stopped. Give the model a "
            "chat template (chat_template.jinja) without such loops or such long texts.",
        )


@contextmanager
def limited(messages: int = 1) -> Iterator[None]:
    """Raises TemplateLimitError inside this context after SECONDS per message, or beyond BYTES of memory.

    An example is rendered up to each of its messages. One within another is bounded by both, and adds no memory.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _timed
    if _timed:
        with _sooner(SECONDS * messages):
            yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS * messages)
    try:
        _timed = True
        _limit_memory(soft, hard)
        yield
    except MemoryError as error:
        raise TemplateLimitError(f"{BYTES // 2**20} MiB of memory for one example") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        _timed = False
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _sooner(seconds: float) -> Iterator[None]:
    """Stop after so many seconds, where the timer that runs would do it later; that one goes on afterwards."""
    left, _ = signal.getitimer(signal.ITIMER_VIRTUAL)
    given = min(seconds, left)
    signal.setitimer(signal.ITIMER_VIRTUAL, given)
    try:
        yield
    finally:
        used = given - signal.getitimer(signal.ITIMER_VIRTUAL)[0]
        signal.setitimer(signal.ITIMER_VIRTUAL, max(left - used, _AT_ONCE))


def _limit_memory(soft: int, hard: int) -> None:
    """The address space of now and BYTES more, where the system says what it is now (Linux)."""
    try:
        file = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)  # by pathlib it takes twice as long, for every example
    except OSError:
        return
    try:
        pages = int(os.read(file, 128).split(maxsplit=1)[0])
    finally:
        os.close(file)
    most = pages * os.sysconf("SC_PAGE_SIZE") + BYTES
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _stop(number: int, frame: FrameType | None) -> None:
    raise TemplateLimitError(f"{SECONDS:g} seconds for a message")
