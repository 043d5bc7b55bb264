"""Imports of large libraries."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused_for_imports() -> Iterator[None]:
    """Pause the garbage collector: torch and what builds upon it are imported in three quarters of the time.

    None of their million objects is garbage, so the collector never looks at them later either (gc.freeze). If all was
    imported before, nothing is frozen, since some objects may have become garbage.
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
