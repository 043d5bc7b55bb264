"""An Event as a line."""

from __future__ import annotations

from typing import Any

from finetune_view.children import Event
from finetune_view.fields import Fields

RETRY: dict[str, Any] = {
    "lastTimestamp": "2026-11-27T18:00:00Z",
    "type": "Warning",
    "reason": "Retrying",
    "message": "Attempt 1 ended.",
    "count": 2,
    "involvedObject": {"kind": "FineTuneJob", "name": "router"},
}


def test_an_event_prints_as_when_what_about_what() -> None:
    said = "2026-11-27T18:00:00+00:00 Warning FineTuneJob/router Retrying: Attempt 1 ended. (x2)"
    assert str(Event(Fields(RETRY))) == said


def test_an_event_without_a_time_prints_too() -> None:
    assert str(Event(Fields({}))).startswith("? ")
