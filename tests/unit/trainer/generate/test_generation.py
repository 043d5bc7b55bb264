from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.generate.generation import MAX_BATCH_PROMPTS, MAX_BATCH_TOKENS, batches, stop_tokens

CONTEXT = 512


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, CONTEXT - 1), max_size=300),
    max_tokens=st.integers(1, 2 * CONTEXT),
)
def test_every_prompt_is_in_one_batch_with_the_tokens_that_it_may_get(lengths: list[int], max_tokens: int) -> None:
    seen: list[int] = []
    for indices, new_tokens in batches(lengths, max_tokens, CONTEXT):
        seen += indices
        longest = max(lengths[index] for index in indices)
        assert 1 <= len(indices) <= MAX_BATCH_PROMPTS
        assert len(indices) == 1 or len(indices) * (longest + new_tokens) <= MAX_BATCH_TOKENS
        # What a prompt gets does not depend on its neighbours.
        assert all(new_tokens == min(max_tokens, CONTEXT - lengths[index]) for index in indices)
    assert sorted(seen) == list(range(len(lengths)))


def test_the_longest_come_first_so_that_too_little_memory_shows_at_once() -> None:
    assert [indices for indices, _ in batches([5, 9, 7], 10, CONTEXT)] == [[1, 2, 0]]


class Fake(SimpleNamespace):
    __hash__ = object.__hash__


def fake_tokenizer(template: str | None) -> Any:
    """The few members that are read; `template` is what a conversation renders to, None: there is no template."""
    ids = {"<eos>": 2, "<|im_end|>": 7, "<|im_start|>": 6}

    def apply_chat_template(conversation: object, **options: object) -> str:
        if template == "refuses":
            raise ValueError("system message needed")
        return str(template)

    return Fake(
        eos_token="<eos>",
        eos_token_id=2,
        chat_template=template,
        apply_chat_template=apply_chat_template,
        all_special_tokens=["<eos>"],
        get_added_vocab=lambda: ids,
        convert_tokens_to_ids=ids.__getitem__,
    )


@pytest.mark.parametrize(
    ("of_model", "template", "expected"),
    [
        (None, None, [2]),
        (2, None, [2]),
        ([3, 4], None, [3, 4, 2]),
        (2, "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\ny<|im_end|>\n", [2, 7]),
        (2, "user: x assistant: y<eos>", [2]),
        (2, "user: x assistant: y\n", [2]),
        (2, "refuses", [2]),
    ],
)
def test_an_output_ends_with_the_turn(
    of_model: int | list[int] | None, template: str | None, expected: list[int]
) -> None:
    assert stop_tokens(of_model, fake_tokenizer(template)) == expected
