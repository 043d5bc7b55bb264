"""A run whose rewards are all alike from the start is ended; one that has learned everything is not."""

from __future__ import annotations

import pytest

from finetune_api.conditions import Reason
from finetune_trainer.methods.rft.first_rewards import PROMPTS, FirstRewards
from finetune_trainer.process.failures import DiagnosedError

HALF = PROMPTS // 2


def test_a_few_prompts_whose_answers_differ_are_enough() -> None:
    first = FirstRewards(completions=2)
    first.add(0, [0.0, 0.0] * HALF)
    first.add(1, [0.0, 0.0] * (HALF - 4) + [0.0, 0.5] * 4)
    first.add(2, [0.0, 0.0] * PROMPTS)  # never judged again


def test_rewards_that_are_all_alike_end_the_run_once_enough_prompts_are_answered() -> None:
    first = FirstRewards(completions=2)
    first.add(0, [0.0, 0.0] * HALF)
    with pytest.raises(DiagnosedError, match=r"mean reward: 0\.5") as caught:
        first.add(1, [1.0, 1.0] * HALF)
    assert caught.value.failure.reason is Reason.REWARD_HAS_NO_SIGNAL


def test_completions_without_a_reward_are_no_difference() -> None:
    with pytest.raises(DiagnosedError, match="mean reward: unknown"):
        FirstRewards(completions=2).add(0, [None, None] * PROMPTS)


def test_a_resumed_run_may_know_all_answers() -> None:
    FirstRewards(completions=2).add(70, [1.0, 1.0] * PROMPTS)
