"""Signs that a model games its graders, from the Trainer's log: warnings, and the end of the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RewardStop
from finetune_api.pod_contracts.progress import hacking_signs
from finetune_trainer.methods.rft.hacking import WatchRewards, is_over, signs_at, signs_of
from finetune_trainer.process.failures import DiagnosedError

Entries = list[dict[str, float]]


def log_of(*evaluations: tuple[float, float, float]) -> Entries:
    """Two steps before each evaluation: the training reward, the validation reward, and the tokens of a completion."""
    entries: Entries = []
    for number, (trained, valid, tokens) in enumerate(evaluations, start=1):
        step = 2 * number
        entries += [
            {"step": step - 1, "loss": 0.0, "reward_mean": trained - 0.1, "completion_tokens_mean": tokens},
            {"step": step, "loss": 0.0, "reward_mean": trained + 0.1, "completion_tokens_mean": tokens},
            {"step": step, "eval_reward_mean": valid, "eval_completion_tokens_mean": 7.0},
        ]
    return entries


def watch(log: Entries, stop: RewardStop | None = None, *, begins: bool = False) -> list[str]:
    """What is noted at the newest evaluation."""
    noted: list[str] = []
    watcher = WatchRewards(stop, lambda message, **_: noted.append(message))
    state: Any = SimpleNamespace(log_history=log, global_step=log[-1]["step"])
    (watcher.on_train_begin if begins else watcher.on_evaluate)(None, state, None)
    return noted


def test_each_evaluation_is_compared_with_the_steps_before_it() -> None:
    found = list(signs_of(log_of((0.2, 0.2, 10), (0.5, 0.3, 20), (0.9, 0.3, 40))))
    assert [one.gap for one in found] == pytest.approx([0.0, 0.2, 0.6])
    assert found[0].growth == pytest.approx(2 * 10 / (10 + 10))
    assert found[2].growth == pytest.approx(40 / ((10 + 10 + 20 + 20 + 40) / 5))  # the first five steps


def test_the_log_has_the_figures_that_it_is_read_for() -> None:
    log = log_of((0.2, 0.2, 10), (0.5, 0.3, 20))
    *before, newest = log
    assert signs_at(before, 4, {"reward_mean": newest["eval_reward_mean"]}) == {
        "reward_gap": pytest.approx(0.2),
        "completion_growth": pytest.approx(20 / 15),
    }
    assert signs_at(before, 4, {}) == {}


def test_an_evaluation_without_a_reward_shows_no_signs() -> None:
    """No completion could be graded. What the one before showed is not told again."""
    assert watch([{"step": 1, "loss": 0.0}, {"step": 1, "eval_loss": 0.1}]) == []
    log = log_of((0.2, 0.2, 10), (0.9, 0.3, 20))
    assert len(watch(log)) == 1
    assert watch([*log, {"step": 6, "eval_loss": 0.1}]) == []


def test_a_usual_run_has_no_warning() -> None:
    assert watch(log_of((0.2, 0.2, 10), (0.5, 0.45, 20))) == []
    assert hacking_signs(0.1, 2.9) == []
    assert hacking_signs(None, None) == []


def test_a_gap_and_long_completions_are_warnings() -> None:
    noted = watch(log_of((0.1, 0.1, 10), (0.2, 0.2, 10), (0.9, 0.3, 90)))
    assert noted == [
        "Step 6: The training reward is 0.60 above validReward: the model may have found a weakness of the graders.",
        "Step 6: Completions have 3.5 times as many tokens as at first: the graders may reward length.",
    ]


def test_so_many_evaluations_in_a_row_end_the_run() -> None:
    stop = RewardStop(gap_above=0.2, after_evaluations=2)
    far, near = (0.9, 0.5, 10.0), (0.5, 0.5, 10.0)
    assert not is_over(log_of(far), stop)
    assert not is_over(log_of(far, near, far), stop)
    assert is_over(log_of(near, far, far), stop)
    assert not is_over(log_of(near, far, far), RewardStop(gap_above=0.5, after_evaluations=2))


def test_completions_that_grow_end_it_only_where_the_spec_says_so() -> None:
    grown = log_of((0.5, 0.5, 10), (0.5, 0.5, 10), (0.5, 0.5, 10), (0.5, 0.5, 60))
    assert not is_over(grown, RewardStop(after_evaluations=1))
    assert is_over(grown, RewardStop(after_evaluations=1, completion_growth_above=5))


@pytest.mark.parametrize("begins", [False, True], ids=["at the evaluation", "by the next attempt"])
def test_the_end_names_the_figures_and_the_best_checkpoint(begins: bool) -> None:
    log = log_of((0.4, 0.4, 10), (0.5, 0.6, 10), (0.9, 0.5, 10))
    with pytest.raises(DiagnosedError) as caught:
        watch(log, RewardStop(after_evaluations=1), begins=begins)
    failure = caught.value.failure
    assert failure.reason is Reason.REWARD_HACKING_SUSPECTED
    assert not failure.retryable
    assert "the training reward was +0.40 beside validReward" in failure.message
    assert "The best checkpoint by validReward is that of step 4 (0.600)" in failure.message
