"""What comes from a cluster is never obeyed by a terminal, and never an error."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_view.fields import Fields, clean

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
        ("\x1b]0;title\x07", "^[]0;title^G"),
        ("\x1b]8;;https://evil.example\x1b\\link", "^[]8;;https://evil.example^[\\link"),
        ("one\r\ntwo\tthree", "one two three"),
        ("admin\u202egnp.exe", "admin\ufffdgnp.exe"),
        ("\x9b2J", "\ufffd2J"),
        ("half a pair: \ud83d", "half a pair: \ufffd"),
        ("two\u2028lines", "two\ufffdlines"),
        ("Größe 7, 例, 👍", "Größe 7, 例, 👍"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(alphabet=st.characters()), st.booleans())
def test_no_text_has_control_characters_or_can_not_be_printed(text: str, lines: bool) -> None:
    shown = clean(text, lines=lines)
    shown.encode()
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cs", "Zl") and not (lines and one == "\n")]
    assert lines or "\n" not in shown


@given(JSON)
def test_any_value_can_be_read_as_anything(value: Any) -> None:
    for fields in (Fields(value), Fields({"a": value}).at("a")):
        assert isinstance(fields.text(), str) and isinstance(fields.block(), str)
        (
            fields.number(),
            fields.whole(),
            fields.time(),
            list(fields),
            list(fields.items()),
            fields.at("x", "y").text("z"),
        )


def test_fields_of_another_type_count_as_absent() -> None:
    fields = Fields({"step": "many", "loss": float("nan"), "time": "soon", "flag": True, "huge": 10**400})
    assert fields.whole("step") is fields.number("loss") is fields.time("time") is fields.number("flag") is None
    assert fields.number("huge") is None
