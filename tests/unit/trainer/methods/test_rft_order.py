"""The order in which reinforcement fine-tuning answers prompts."""

from __future__ import annotations

from collections import Counter

from finetune_trainer.methods.prompt_order import PromptOrder


def steps(order: PromptOrder) -> list[list[list[int]]]:
    """The rows of each step's micro-batches, as TRL's dataloader takes them."""
    rows, size = list(order), order.per_step * order.completions
    assert len(rows) == len(order)
    taken = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [taken[start : start + order.micro_batches] for start in range(0, len(taken), order.micro_batches)]


def test_each_prompt_of_a_step_is_answered_in_a_group_and_each_micro_batch_has_all_rows() -> None:
    taken = steps(PromptOrder(prompts=6, per_step=2, completions=3, micro_batches=2, seed=1))
    assert len(taken) == 3
    for first, second in taken:
        assert first == second
        assert first[0:3] == [first[0]] * 3
        assert first[3:6] == [first[3]] * 3
    assert Counter(prompt for first, _ in taken for prompt in first) == {prompt: 3 for prompt in range(6)}


def test_a_last_step_that_is_incomplete_is_filled_up_from_the_start_of_the_epoch() -> None:
    taken = [first for (first,) in steps(PromptOrder(prompts=5, per_step=3, completions=1, micro_batches=1, seed=1))]
    assert len(taken) == 2
    assert sorted(taken[0] + taken[1][:2]) == [0, 1, 2, 3, 4]
    assert taken[1][2] == taken[0][0]


def test_more_prompts_a_step_than_there_are_repeat() -> None:
    ((taken,),) = steps(PromptOrder(prompts=2, per_step=5, completions=1, micro_batches=1, seed=1))
    assert sorted(Counter(taken).values()) == [2, 3]


def test_an_epoch_has_an_order_of_its_own_which_does_not_depend_on_those_before() -> None:
    order = PromptOrder(prompts=20, per_step=5, completions=1, micro_batches=1, seed=1)
    first = list(order)
    order.set_epoch(3)
    third = list(order)
    assert third != first
    assert sorted(third) == sorted(first)
    resumed = PromptOrder(prompts=20, per_step=5, completions=1, micro_batches=1, seed=1)
    resumed.set_epoch(3)
    assert list(resumed) == third
