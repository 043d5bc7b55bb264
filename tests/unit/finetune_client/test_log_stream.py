"""A log that breaks off goes on with the next line: none is lost, none is shown twice."""

from __future__ import annotations

import pytest

from finetune_client.log_stream import LogPosition

FIRST, SECOND = b"2026-11-27T15:00:01.100000000Z", b"2026-11-27T15:00:01.200000000Z"


def taken(position: LogPosition, *lines: bytes) -> list[str]:
    return [text for line in lines if (text := position.take(line)) is not None]


def test_a_stream_that_was_reopened_goes_on_with_the_next_line() -> None:
    """The kubelet repeats the whole second; two lines may have the same time."""
    position = LogPosition()
    assert position.since == {}
    assert taken(position, FIRST + b" one", SECOND + b" two", SECOND + b" three") == ["one", "two", "three"]
    assert position.since == {"sinceTime": "2026-11-27T15:00:01Z"}
    position.reopened()
    again = (FIRST + b" one", SECOND + b" two", SECOND + b" three", SECOND + b" four", b"2026-11-27T15:00:02Z five")
    assert taken(position, *again) == ["four", "five"]


def test_a_node_outside_utc_loses_no_line() -> None:
    """Its clocks may also go back by an hour in between."""
    position = LogPosition()
    assert taken(position, b"2026-10-25T02:59:59.5+02:00 one", b"2026-10-25T02:00:00.25+01:00 two") == ["one", "two"]
    assert position.since == {"sinceTime": "2026-10-25T01:00:00Z"}
    position.reopened()
    again = (b"2026-10-25T02:00:00.25+01:00 two", b"2026-10-25T02:00:00.3+01:00 three")
    assert taken(position, *again) == ["three"]


@pytest.mark.parametrize("told", ["2026-13-01T00:00:00Z", "0001-01-01T00:00:00+02:00", "2026-11-27T15:00:01"])
def test_what_is_no_time_is_part_of_the_line(told: str) -> None:
    assert taken(LogPosition(), f"{told} one".encode()) == [f"{told} one"]


def test_a_line_is_shown_as_a_terminal_may_show_it() -> None:
    position = LogPosition()
    assert taken(position, FIRST + b" 10%\r 20%") == [" 20%"]
    assert taken(position, SECOND + b" \x1b[2Jgone") == ["^[[2Jgone"]
    assert taken(LogPosition(), b"unable to retrieve container logs") == ["unable to retrieve container logs"]
