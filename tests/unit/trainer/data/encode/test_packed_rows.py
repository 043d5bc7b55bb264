"""The plan packs as TRL does, from lengths alone."""

from __future__ import annotations

from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trl import pack_dataset

from finetune_trainer.data.encode.packed_rows import packed_rows


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), most=st.integers(8, 64), times=st.integers(1, 40))
@example(lengths=[5, 7], most=8, times=700)
def test_as_many_rows_as_trl_makes(lengths: list[int], most: int, times: int) -> None:
    lengths = lengths * times
    dataset = Dataset.from_dict({"input_ids": [[1] * length for length in lengths]})
    assert packed_rows(lengths, most) == len(pack_dataset(dataset, most, "bfd"))
