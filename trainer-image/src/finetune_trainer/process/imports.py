"""Imports of what stays for as long as the process does."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused_for_imports() -> Iterator[None]:
    """Import torch and what builds upon it in three quarters of the time: their million objects are all kept.

    Afterwards the garbage collector doesn't look at them again either. Where everything was imported before, what has
    become rubbish since can still be collected.
    """
    before, was_enabled = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if was_enabled:
            gc.enable()
