"""Times come from anywhere: each can be counted with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.base import EARLIEST, LATEST, LONGEST_SECONDS, whole_seconds
from finetune_api.finetunejob import AttemptStatus


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T14:00:00+02:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T12:00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("1970-01-01T00:00:07Z", datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)),
        ("1970-01-01T00:00:00+14:00", EARLIEST),
        ("9999-12-31T23:59:59Z", LATEST),
        ("9999-12-31T23:59:59-12:00", LATEST),
        ("0001-01-01T00:00:00Z", EARLIEST),
        ("0001-01-01T00:00:00+14:00", EARLIEST),
    ],
)
def test_a_time_of_a_status_can_be_counted_with(text: str, moment: datetime) -> None:
    wire = {"number": 1, "jobName": "a", "classGeneration": 1, "startTime": text}
    read = AttemptStatus.from_another_version(wire).start_time
    assert read == moment
    assert whole_seconds(datetime.fromisoformat(text)) == moment
    assert read - timedelta(seconds=LONGEST_SECONDS) < read < read + timedelta(seconds=LONGEST_SECONDS)
