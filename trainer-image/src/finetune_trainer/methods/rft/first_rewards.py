"""Whether the model's first answers differ in their reward: where none do, nothing can be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RewardCalibration
from finetune_trainer.process.failures import DiagnosedError

PROMPTS = 64
"""So many answered prompts are judged."""
MOST_ALIKE = 0.95
BINS = 10
LOWEST_MEAN, HIGHEST_MEAN = 0.1, 0.9
"""Beyond these, little is left to learn from most prompts."""
ADVICE = (
    "If the model is never right, train the task with method.type SFT first (model.fineTuneJobRef), or give partial "
    "credit in method.rft.reward. If it always is, use harder prompts."
)

Rewards = Sequence[Sequence[float | None]]
"""Those of the answers to each prompt; None where one could not be graded."""


def calibration_of(answered: Rewards) -> RewardCalibration:
    """What the rewards of the answers to some prompts say."""
    known = [reward for group in answered for reward in group if reward is not None]
    counts = [0] * BINS
    for reward in known:
        counts[min(BINS - 1, int(reward * BINS))] += 1
    return RewardCalibration(
        prompts=len(answered),
        mean_reward=sum(known) / len(known) if known else None,
        alike=sum(not differs(group) for group in answered),
        histogram=counts,
    )


def differs(rewards: Sequence[float | None]) -> bool:
    """Whether something can be learned from the answers to a prompt."""
    return len({reward for reward in rewards if reward is not None}) > 1


def without_signal(found: RewardCalibration, completions: int) -> DiagnosedError | None:
    """RewardHasNoSignal, if too few of PROMPTS prompts have answers with different rewards; None also for fewer."""
    if found.prompts < PROMPTS or found.alike < MOST_ALIKE * found.prompts:
        return None
    mean = "unknown" if found.mean_reward is None else f"{found.mean_reward:.3f}"
    return DiagnosedError(
        Reason.REWARD_HAS_NO_SIGNAL,
        f"For {found.alike} of the first {found.prompts} prompts, all {completions} answers of the model have "
        f"the same reward (mean reward: {mean}), and nothing can be learned from these. {ADVICE}",
    )


def has_signal(answered: Rewards) -> bool:
    """Whether so many prompts have answers with different rewards that no more of them can change the judgment."""
    return sum(map(differs, answered)) > (1 - MOST_ALIKE) * PROMPTS


def weak_signal_warning(found: RewardCalibration) -> str | None:
    """A warning about rewards that leave little to learn; None if they leave enough."""
    mean = found.mean_reward
    if mean is None or LOWEST_MEAN <= mean <= HIGHEST_MEAN:
        return None
    way = (
        "almost never right: training may need many prompts for little. SFT first, or partial credit in "
        "method.rft.reward, helps"
        if mean < LOWEST_MEAN
        else "almost always right: little is left to learn. Harder prompts help"
    )
    return f"The starting model's answers to {found.prompts} prompts have a mean reward of {mean:.3f}. It is {way}."


@dataclass
class FirstRewards:
    """The rewards of a run's first steps, before the model has changed much."""

    completions: int
    """Of each prompt, one after another."""
    _groups: list[Sequence[float | None]] = field(default_factory=list)
    _counts: bool = False

    def add(self, step: int, rewards: Sequence[float | None]) -> None:
        """Add those of the step after `step`.

        Raises DiagnosedError (RewardHasNoSignal) once PROMPTS were answered from the start of the run on, unless some
        rewards differ: a run that goes on has learned something by then, and may know all answers.
        """
        self._counts = self._counts or step == 0
        if not self._counts:
            return
        self._groups += [
            rewards[start : start + self.completions] for start in range(0, len(rewards), self.completions)
        ]
        if len(self._groups) < PROMPTS:
            return
        self._counts = False
        error = without_signal(calibration_of(self._groups), self.completions)
        if error is not None:
            raise error
