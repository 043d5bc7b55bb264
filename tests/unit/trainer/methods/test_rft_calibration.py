"""Which models preflight calibrates rewards with, decided by what is known before their weights are fetched."""

from __future__ import annotations

from typing import NoReturn

import pytest

from finetune_api.finetunejob import RFT
from finetune_grading.rewards import compile_reward
from finetune_trainer.methods.method import Machine, Start
from finetune_trainer.methods.rft.calibration import RewardsOfStart
from finetune_trainer.methods.rft.first_rewards import (
    PROMPTS,
    calibration_of,
    has_signal,
    weak_signal_warning,
    without_signal,
)
from finetune_trainer.model.memory import ModelSize

GIB = 1 << 30
EXACT = {"name": "exact", "type": "StringCheck"}
SHORT, LONG = 32, 512
"""Tokens of an answer."""


def never(*_: object) -> NoReturn:
    raise AssertionError("nothing is read before it is decided")


def start(size: ModelSize | None, download_bytes: int) -> Start:
    return Start(size, download_bytes, examples=1000, prompts=3000, rows=never, fetch=never, seed=17)


def why_not(begin: Start, tokens: int, free_bytes: int, cpus: int) -> str | None:
    """With eight answers to each prompt."""
    spec = RFT.from_wire({"graders": [EXACT], "maxCompletionTokens": tokens})
    return RewardsOfStart(spec, compile_reward(spec)).why_not(begin, Machine(free_bytes, cpus))


@pytest.mark.parametrize(
    ("millions", "tokens", "free", "cpus", "told"),
    [
        (4, LONG, GIB, 1, None),
        (135, SHORT, GIB, 2, None),
        (500, SHORT, 4 * GIB, 2, None),
        (500, SHORT, GIB, 2, "takes 2.6 GiB of memory, and preflight has 1.0 left"),
        (500, LONG, 4 * GIB, 2, "could take 27 minutes on 2 CPU(s)"),
        (500, LONG, 4 * GIB, 16, None),
        (8000, SHORT, 64 * GIB, 64, "weights are 14.9 GiB, and preflight fetches at most 4"),
    ],
)
def test_memory_time_and_the_download_decide(
    millions: int, tokens: int, free: int, cpus: int, told: str | None
) -> None:
    """Models in half precision with grouped queries."""
    size = ModelSize(millions * 1_000_000, 24, 896, 4864, 0, 0, keys_and_values=256)
    found = why_not(start(size, 2 * size.parameters), tokens, free, cpus)
    assert found is None if told is None else told in str(found)


def test_a_model_of_unknown_size_is_not_tried() -> None:
    assert why_not(start(None, 0), SHORT, 64 * GIB, 64) == "the model's config does not say how large it is"


def test_the_histogram_counts_answers_and_leaves_out_those_without_a_reward() -> None:
    found = calibration_of([[0.0, 0.05, None], [0.5, 0.5, 0.5], [0.95, 1.0, None]])
    assert found.histogram == [2, 0, 0, 0, 0, 3, 0, 0, 0, 2]
    assert found.prompts == 3
    assert found.alike == 1
    assert found.mean_reward == pytest.approx(3.5 / 7)


def test_four_prompts_whose_answers_differ_settle_it() -> None:
    assert not has_signal([[0.0, 1.0]] * 3 + [[0.0, 0.0]] * 20)
    assert has_signal([[0.0, 1.0]] * 4 + [[0.0, 0.0]] * 20)
    assert without_signal(calibration_of([[0.0, 1.0]] * 4 + [[0.0, 0.0]] * (PROMPTS - 4)), 2) is None
    assert without_signal(calibration_of([[0.0, 1.0]] * 3 + [[0.0, 0.0]] * (PROMPTS - 3)), 2) is not None


def test_too_few_prompts_refuse_nothing() -> None:
    assert without_signal(calibration_of([[0.0, 0.0]] * (PROMPTS - 1)), 2) is None


@pytest.mark.parametrize(("rewards", "told"), [([0.0, 0.1], "almost never right"), ([0.9, 1.0], "almost always right")])
def test_rewards_that_leave_little_to_learn_are_a_warning(rewards: list[float], told: str) -> None:
    assert told in str(weak_signal_warning(calibration_of([rewards] * PROMPTS)))
    assert weak_signal_warning(calibration_of([[0.0, 1.0]] * PROMPTS)) is None
    assert weak_signal_warning(calibration_of([])) is None
