"""Signs that a model games its graders instead of learning the task. Decided by the Trainer's log alone, which every
checkpoint contains.

A training reward that rises above that of held-out prompts, and answers that grow ever longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import structlog
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RewardStop
from finetune_api.pod_contracts.progress import hacking_signs
from finetune_trainer.methods.rft.tally import REWARD, TOKENS
from finetune_trainer.process.failures import DiagnosedError

FIRST_STEPS = 5
"""Whose answers are as long as those of the starting model."""
GAP, GROWTH = "reward_gap", "completion_growth"

_log = structlog.get_logger()

Log = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Signs:
    """What an evaluation, and the steps since the one before, say."""

    step: int
    valid_reward: float
    gap: float | None
    """The mean training reward of these steps, minus the reward on held-out prompts."""
    growth: float | None
    """The tokens of an answer, as a multiple of those at first."""

    def __str__(self) -> str:
        """The figures, after `at step N`."""
        gap = None if self.gap is None else f"the training reward was {self.gap:+.2f} beside validReward"
        growth = None if self.growth is None else f"completions had {self.growth:.1f} times the tokens of the first"
        return ", and ".join(filter(None, (gap, growth)))

    def exceed(self, stop: RewardStop) -> bool:
        """Whether the run may end by them."""
        too_far = self.gap is not None and self.gap > stop.gap_above
        limit = stop.completion_growth_above
        return too_far or (limit is not None and self.growth is not None and self.growth > limit)


def signs_of(log: Log) -> Iterator[Signs]:
    """Those of each evaluation."""
    first: list[float] = []
    since: list[Mapping[str, float]] = []
    for entry in log:
        if TOKENS in entry and len(first) < FIRST_STEPS:
            first.append(entry[TOKENS])
        if f"eval_{REWARD}" not in entry:
            since.append(entry)
            continue
        valid = entry[f"eval_{REWARD}"]
        rewards, tokens = ([one[name] for one in since if name in one] for name in (REWARD, TOKENS))
        yield Signs(
            step=int(entry["step"]),
            valid_reward=valid,
            gap=fmean(rewards) - valid if rewards else None,
            growth=fmean(tokens) / fmean(first) if tokens and fmean(first) > 0 else None,
        )
        since = []


def signs_at(log: Log, step: int, measured: Mapping[str, float]) -> dict[str, float]:
    """The figures of an evaluation that is not in the log yet, as the log is to have them."""
    if REWARD not in measured:
        return {}
    newest = list(signs_of([*log, {"step": step, f"eval_{REWARD}": measured[REWARD]}]))[-1]
    found = {GAP: newest.gap, GROWTH: newest.growth}
    return {name: value for name, value in found.items() if value is not None}


def is_over(log: Log, stop: RewardStop) -> bool:
    """Whether the last `after_evaluations` evaluations all show signs."""
    found = list(signs_of(log))[-stop.after_evaluations :]
    return len(found) == stop.after_evaluations and all(one.exceed(stop) for one in found)


class WatchRewards(TrainerCallback):
    """Warns of signs at an evaluation, and ends the run if they last as long as the spec says."""

    def __init__(self, stop: RewardStop | None, note: Callable[..., None]) -> None:
        self._stop = stop
        self._note = note

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end(state)  # an attempt that was killed before it could tell

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # An evaluation of which no completion could be graded has no reward, and no signs.
        measured = [one for one in signs_of(state.log_history) if one.step == state.global_step]
        for newest in measured[-1:]:
            self._warn(newest)
        self._end(state)

    def _warn(self, newest: Signs) -> None:
        for sign in hacking_signs(newest.gap, newest.growth):
            _log.warning(sign, step=newest.step)
            self._note(f"Step {newest.step}: {sign}", type="warning", step=newest.step)

    def _end(self, state: TrainerState) -> None:
        """Raises DiagnosedError (RewardHackingSuspected). The step was saved before its evaluation."""
        stop = self._stop
        if stop is None or not is_over(state.log_history, stop):
            return
        found = list(signs_of(state.log_history))
        best, last = max(found, key=lambda one: (one.valid_reward, one.step)), found[-1]
        raise DiagnosedError(
            Reason.REWARD_HACKING_SUSPECTED,
            f"At each of the last {stop.after_evaluations} evaluations, method.rft.stop was exceeded. At step "
            f"{last.step} {last}. The best checkpoint by validReward is that of step {best.step} "
            f"({best.valid_reward:.3f}), which is kept (status.checkpoints). Read the completions in events.jsonl, and "
            "correct the graders or add prompts.",
        )
