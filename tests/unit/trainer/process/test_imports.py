"""While what stays is imported, the garbage collector rests; what comes after, it looks at as ever."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from finetune_trainer.process.imports import gc_paused_for_imports


def test_what_is_imported_is_not_looked_at_and_later_rubbish_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with gc_paused_for_imports():
        assert not gc.isenabled()
        imported: list[object] = []
        monkeypatch.setitem(sys.modules, "imported_for_this_test", ModuleType("imported_for_this_test"))
    assert gc.isenabled()
    later: list[object] = []
    assert not _is_looked_at(imported)
    assert _is_looked_at(later)


def test_where_everything_was_imported_before_rubbish_can_be_collected() -> None:
    rubbish: list[object] = []
    with gc_paused_for_imports():
        pass
    assert gc.isenabled()
    assert _is_looked_at(rubbish)


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ModuleNotFoundError), gc_paused_for_imports():
        raise ModuleNotFoundError
    assert gc.isenabled()


def _is_looked_at(found: list[object]) -> bool:
    return any(tracked is found for tracked in gc.get_objects())
