"""How many outputs are generated together: by their full lengths, and by the prompts that are processed at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from finetune_trainer.serving.engine.capacity import MOST_PREFILL_TOKENS, Capacity


def row(prompt: int, longest: int) -> Any:
    return SimpleNamespace(tokens=[0] * prompt, longest=longest)


def test_the_longest_row_counts_for_all_since_the_others_are_padded() -> None:
    capacity = Capacity(tokens=100)
    assert capacity.fits([row(1, 50)], [], row(1, 10))
    assert not capacity.fits([row(1, 50)], [row(1, 10)], row(1, 10))
    assert not capacity.fits([row(1, 10)], [], row(1, 60))


def test_one_alone_always_fits() -> None:
    assert Capacity(tokens=0).fits([], [], row(MOST_PREFILL_TOKENS * 2, 10**6))


def test_no_more_rows_than_allowed_and_half_of_them_after_the_memory_did_not_suffice() -> None:
    capacity = Capacity(tokens=10**6, rows=4)
    assert capacity.fits([row(1, 2)] * 3, [], row(1, 2))
    assert not capacity.fits([row(1, 2)] * 4, [], row(1, 2))
    assert capacity.halved(4) == Capacity(tokens=500_000, rows=2)
    assert Capacity(tokens=10**6).halved(6).rows == 3
    assert Capacity(tokens=1, rows=1).halved(2).rows == 1


def test_the_room_grows_again_up_to_what_it_was() -> None:
    most = Capacity(tokens=103, rows=4)
    once = most.halved(4)
    assert once.doubled(most) == most
    assert once.halved(2).doubled(most) == once


def test_prompts_that_are_processed_together_are_bounded() -> None:
    capacity = Capacity(tokens=10**6)
    half = row(MOST_PREFILL_TOKENS // 2, 10**4)
    assert capacity.fits([], [half], row(1, 10))
    assert not capacity.fits([], [half, half], row(1, 10))
