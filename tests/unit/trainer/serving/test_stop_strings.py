from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.serving.engine.stop_strings import StopStrings

WORDS = st.text("abc", max_size=12)


def shown(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    """What a client sees of an answer that comes in pieces, and whether a stop string ended it."""
    stop, seen = StopStrings(stops), []
    for piece in pieces:
        text, stopped = stop.feed(piece)
        seen.append(text)
        if stopped:
            return seen, True
    return [*seen, stop.flush()], False


@given(pieces=st.lists(WORDS, max_size=6), stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4))
def test_it_does_not_matter_in_which_pieces_a_text_comes(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    ends = [end for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    expected = text
    if ends:
        first = min(ends)
        expected = text[: min(first - len(stop) for stop in stops if text[:first].endswith(stop))]
    seen, stopped = shown(pieces, stops)
    assert ("".join(seen), stopped) == (expected, bool(ends))


@given(pieces=st.lists(WORDS, max_size=6), stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4))
def test_nothing_of_a_stop_string_was_ever_shown(pieces: list[str], stops: list[str]) -> None:
    seen, _ = shown(pieces, stops)
    assert not any(stop in "".join(seen) for stop in stops)


def test_only_what_may_become_a_stop_string_waits() -> None:
    stop = StopStrings(["END"])
    assert [stop.feed(piece) for piece in ("say E", "N", "ough, EN", "D!")] == [
        ("say ", False),
        ("", False),
        ("ENough, ", False),
        ("", True),
    ]
