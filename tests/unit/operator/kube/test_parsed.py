"""An object of the cache is parsed once, and never mistaken for another one."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import UnreadableStatusError
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.kube.parsed import KEPT, Parsed, status_of


class Counted:
    """Parses a stored name, and counts how often it does."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, stored: Any) -> str:
        self.calls += 1
        if stored is None:
            raise ValueError("nothing to parse")
        return str(stored["name"])


def test_the_same_object_is_parsed_once_and_its_next_version_again() -> None:
    counted = Counted()
    parsed, stored, newer = Parsed(counted), {"name": "a"}, {"name": "b"}
    assert [parsed(stored), parsed(stored), parsed(newer), parsed(stored)] == ["a", "a", "b", "a"]
    assert counted.calls == 2


def test_an_object_that_took_the_place_of_another_in_memory_is_parsed_itself() -> None:
    """Python gives a new object the identity of one that is gone: those that are remembered are not."""
    parsed = Parsed(Counted())
    assert [parsed({"name": str(number)}) for number in range(4 * KEPT)] == [str(number) for number in range(4 * KEPT)]


def test_only_the_newest_are_kept() -> None:
    counted = Counted()
    parsed, objects = Parsed(counted), [{"name": str(number)} for number in range(KEPT + 1)]
    for one in objects:
        parsed(one)
    parsed(objects[-1])
    assert counted.calls == KEPT + 1
    parsed(objects[0])
    assert counted.calls == KEPT + 2


def test_what_does_not_parse_is_refused_each_time() -> None:
    parsed = Parsed(Counted())
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing to parse"):
            parsed(None)


def test_a_status_is_read_as_ever() -> None:
    parent: dict[str, Any] = {"status": {"phase": "Training", "addedLater": 1}}
    status = status_of(FineTuneJobStatus, parent)
    assert status == FineTuneJobStatus.read(parent["status"])
    assert status_of(FineTuneJobStatus, parent) is status
    assert status_of(FineTuneJobStatus, {}) == FineTuneJobStatus()
    for _ in range(2):
        with pytest.raises(UnreadableStatusError):
            status_of(FineTuneJobStatus, {"status": {"phase": "Unheard"}})
