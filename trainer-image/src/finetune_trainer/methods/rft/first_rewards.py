"""Whether the model's first answers differ in their reward: where none do, nothing can be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError

PROMPTS = 64
"""So many answered prompts are judged."""
MOST_ALIKE = 0.95
ADVICE = (
    "If the model is never right, train the task with method.type SFT first (model.fineTuneJobRef), or give partial "
    "credit in method.rft.reward. If it always is, use harder prompts."
)


@dataclass
class FirstRewards:
    """The rewards of a run's first steps, before the model has changed much."""

    completions: int
    """Of each prompt, one after another."""
    _groups: list[list[float]] = field(default_factory=list)
    _counts: bool = False

    def add(self, step: int, rewards: Sequence[float | None]) -> None:
        """Add those of the step after `step`.

        Raises DiagnosedError (RewardHasNoSignal) once PROMPTS were answered from the start of the run on, unless some
        rewards differ: a run that goes on has learned something by then, and may know all answers.
        """
        self._counts = self._counts or step == 0
        if not self._counts:
            return
        for start in range(0, len(rewards), self.completions):
            group = rewards[start : start + self.completions]
            self._groups.append([reward for reward in group if reward is not None])
        if len(self._groups) < PROMPTS:
            return
        self._counts = False
        self._judge()

    def _judge(self) -> None:
        alike = sum(len(set(group)) < 2 for group in self._groups)
        if alike < MOST_ALIKE * len(self._groups):
            return
        known = [reward for group in self._groups for reward in group]
        mean = f"{sum(known) / len(known):.3f}" if known else "unknown"
        raise DiagnosedError(
            Reason.REWARD_HAS_NO_SIGNAL,
            f"For {alike} of the first {len(self._groups)} prompts, all {self.completions} answers of the model have "
            f"the same reward (mean reward: {mean}), and nothing can be learned from these. {ADVICE}",
        )
