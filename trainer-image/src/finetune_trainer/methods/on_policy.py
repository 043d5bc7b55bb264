"""What trainers share whose model learns on its own completions: prompts that are tokenized already, and a generation
that can be given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.checkpoint.training_state import random_states, set_random_states
from finetune_trainer.methods.prompt_order import PromptOrder
from finetune_trainer.methods.shared_batches import LimitedWarmup
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.process.heartbeats import Phase

MOST_TOKENS_AT_ONCE = 32_768
"""Prompt and new tokens that are generated in one batch: bounds the key-value cache, and how long a SIGTERM waits."""


class OnPolicy(LimitedWarmup, Resumable):
    """A mixin that goes before a Trainer class of TRL, with saves in the background.

    Each step generates its own completions, so a checkpoint of any step is one between two generations.
    """

    asked_to_stop: Callable[[], bool]
    saves: Any
    args: Any
    state: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    max_completion_length: int
    completions_per_prompt: int = 1
    _states: dict[str, Any] | None = None
    """The random generators' after the last step; None before the first of this attempt, which may be saved already."""

    def _get_train_sampler(self, dataset: Any = None) -> PromptOrder:
        micro_batches = self.args.gradient_accumulation_steps
        completions = self.args.per_device_train_batch_size * micro_batches
        return PromptOrder(
            prompts=len(self.train_dataset),
            per_step=completions // self.completions_per_prompt,
            completions=self.completions_per_prompt,
            micro_batches=micro_batches,
            seed=self.args.seed,
        )

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """With the precision of a training step, which adapters are in."""
        with self.accelerator.autocast():
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]

    def generated(self, prompt_ids: list[list[int]], generate: Callable[[list[list[int]]], Any]) -> list[list[int]]:
        """The completions, a part at a time. Raises DisruptedError."""
        found: list[list[int]] = []
        for part in self._parts(prompt_ids):
            self._stop_if_asked()
            found += generate(part)
        return found

    def _parts(self, prompt_ids: list[list[int]]) -> Iterator[list[list[int]]]:
        longest = max(map(len, prompt_ids)) + self.max_completion_length
        size = max(1, MOST_TOKENS_AT_ONCE // longest)
        for start in range(0, len(prompt_ids), size):
            yield prompt_ids[start : start + size]

    def _stop_if_asked(self) -> None:
        """After a SIGTERM, save the last step as it was when it ended, and give up the one that is under way."""
        step, training = self.state.global_step, self.model.training
        heartbeats.beat(Phase.TRAINING if training else Phase.EVALUATING, step + training)
        if not self.asked_to_stop():
            return
        if training and self._states is not None and self.saves.last_step != step:
            set_random_states(self._states)
            self.saves.save(self._training())
        raise DisruptedError(f"asked to stop while completions were generated, after step {step}")

    def training_step(self, *inputs: Any, **more: Any) -> Any:
        """One micro-batch."""
        loss = super().training_step(*inputs, **more)  # type: ignore[misc]
        self._states = random_states()
        return loss

    def evaluation_loop(self, *inputs: Any, **more: Any) -> Any:
        """Answer with the same randomness in every evaluation, so that they can be compared."""
        torch.manual_seed(self.args.seed)
        return super().evaluation_loop(*inputs, **more)  # type: ignore[misc]
