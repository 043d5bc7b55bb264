"""A log that breaks off goes on with the next line: none is lost, none is shown twice."""

from __future__ import annotations

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


def test_a_line_is_shown_as_a_terminal_may_show_it() -> None:
    position = LogPosition()
    assert taken(position, FIRST + b" 10%\r 20%") == [" 20%"]
    assert taken(position, SECOND + b" \x1b[2Jgone") == ["^[[2Jgone"]
    assert taken(LogPosition(), b"unable to retrieve container logs") == ["unable to retrieve container logs"]
