"""The vocabulary of conditions."""

from __future__ import annotations

import re

import pytest

from finetune_api.conditions import REASON_MEANINGS, Reason


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_pascal_case_and_tells_a_person_something(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", reason)
    assert REASON_MEANINGS[reason].endswith(".")


def test_no_meaning_is_repeated() -> None:
    assert len(set(REASON_MEANINGS.values())) == len(Reason)
