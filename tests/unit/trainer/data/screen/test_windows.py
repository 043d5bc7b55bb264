"""A long text is looked at in parts, since some patterns of keys take time by the square of what they get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.screen.key_formats import OVERLAP, WINDOW, has_key, windows

STRIPE = "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"


@given(
    st.lists(st.sampled_from(["a" * 700, "b", " ", "\n", "c" * 1500, "word and word "]), max_size=40).map("".join),
    st.data(),
)
def test_whatever_is_short_enough_is_whole_in_a_part_and_the_parts_are_few(text: str, data: st.DataObject) -> None:
    parts = list(windows(text))
    assert all(len(part) <= WINDOW for part in parts)
    assert len(parts) <= 1 + len(text) // (WINDOW - 2 * OVERLAP)
    begin = data.draw(st.integers(0, max(0, len(text) - 1)))
    assert any(text[begin : begin + OVERLAP] in part for part in parts)


@pytest.mark.parametrize("before", [0, 100, WINDOW - OVERLAP, WINDOW - 10, WINDOW, 5 * WINDOW - 7])
@pytest.mark.parametrize("filler", ["-", " ", "word "])
def test_a_key_is_found_wherever_it_is_in_a_long_text(before: int, filler: str) -> None:
    text = (filler * WINDOW * 6)[:before] + " " + STRIPE + " " + filler * WINDOW
    assert has_key(text)


def test_a_long_text_without_a_key_is_not_flagged() -> None:
    assert not has_key("an ordinary sentence, and another one. " * 1000)
