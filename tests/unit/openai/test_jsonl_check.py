"""The first lines of a file for fine-tuning, however its bytes arrive."""

from __future__ import annotations

import json

import pytest

from finetune_openai.errors import RefusedError
from finetune_openai.storage.jsonl_check import LINES_CHECKED, LONGEST_BYTES, FirstLines

GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).encode()


def check(content: bytes, piece: int = 7) -> None:
    first = FirstLines()
    for start in range(0, len(content), piece):
        first.feed(content[start : start + piece])
    first.end()


@pytest.mark.parametrize(
    "example",
    [
        {"prompt": "a", "completion": "b"},
        {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"instruction": "a", "output": "b"},
        {"conversations": []},
    ],
)
def test_every_format_of_the_trainer_passes(example: object) -> None:
    check(json.dumps(example).encode() + b"\n\n")


@pytest.mark.parametrize("piece", [1, 7, 1000, 10_000_000])
def test_the_line_is_named_whatever_pieces_it_came_in(piece: int) -> None:
    with pytest.raises(RefusedError, match="Line 3 is not a valid JSON dictionary"):
        check(GOOD + b"\n" + GOOD + b"\n[]\n" + GOOD, piece)


def test_blank_lines_count_and_the_last_one_needs_no_line_break() -> None:
    with pytest.raises(RefusedError, match="Line 4 is not"):
        check(b"\n" + GOOD + b"\r\n\nbroken")


def test_what_comes_after_the_first_lines_is_left_to_the_job() -> None:
    check((GOOD + b"\n") * LINES_CHECKED + b"broken\n", 1000)


def test_a_line_longer_than_what_is_kept_is_left_to_the_job() -> None:
    check(GOOD + b"\n{" + b" " * LONGEST_BYTES + b"\nbroken\n", 100_000)


def test_a_broken_line_before_a_long_one_is_refused() -> None:
    with pytest.raises(RefusedError, match="Line 1 is not"):
        check(b"broken\n{" + b" " * LONGEST_BYTES, 100_000)


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"messages": [{"role": 1}]}', b'{"messages": [[]]}', b"\x00"],
    ids=["nested deeply", "role", "message", "control character"],
)
def test_hostile_lines_are_refused_in_one_printable_line(line: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        check(line)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500
