"""What our reinforcement trainers share: prompts that are tokenized already, graders, and a generation that can be
given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.checkpoint.training_state import random_states, set_random_states
from finetune_trainer.methods.rft.grading import CompletionGrader
from finetune_trainer.methods.rft.hacking import signs_at
from finetune_trainer.methods.rft.prompts import PromptOrder
from finetune_trainer.methods.rft.tally import Tally, scores_of
from finetune_trainer.methods.shared_batches import LimitedWarmup
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.report.events import COMPLETION

MOST_TOKENS_AT_ONCE = 32_768
"""Prompt and new tokens that are generated in one batch: bounds the key-value cache, and how long a SIGTERM waits."""
SHOWN_CHARACTERS = 1000
KEPT_METRICS = {"entropy": "entropy", "frac_reward_zero_std": "groups_without_spread", "kl": "kl"}
"""Of TRL's own metrics; most others repeat ours."""


class Rollouts(LimitedWarmup, Resumable):
    """A mixin that goes before a Trainer class of TRL, with saves in the background.

    Each step generates its own completions, so a checkpoint of any step is one between two generations.
    """

    grader: CompletionGrader
    asked_to_stop: Callable[[], bool]
    note: Callable[..., None]
    saves: Any
    args: Any
    state: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    num_generations: int
    max_completion_length: int
    _metrics: Any
    _prepare_inputs: Any
    _states: dict[str, Any] | None = None
    """The random generators' after the last step; None before the first of this attempt, which may be saved already."""

    def _get_train_sampler(self, dataset: Any = None) -> PromptOrder:
        return PromptOrder(
            prompts=len(self.train_dataset),
            per_step=self.args.generation_batch_size // self.num_generations,
            completions=self.num_generations,
            micro_batches=self.args.steps_per_generation,
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
        of_training, self.grader.tally, self.grader.evaluates = self.grader.tally, Tally(), True
        torch.manual_seed(self.args.seed)
        try:
            output = super().evaluation_loop(*inputs, **more)  # type: ignore[misc]
            self.grader.refuse_errors()
            measured = self.grader.tally.metrics()
            self._note_completions(self.grader.tally)
            measured |= signs_at(self.state.log_history, self.state.global_step, measured)
        finally:
            self.grader.tally, self.grader.evaluates = of_training, False
        output.metrics.update({f"eval_{name}": value for name, value in measured.items()})
        return output

    def _note_completions(self, tally: Tally) -> None:
        for number, (shown, rewarded) in enumerate(zip(tally.shown, tally.rewarded, strict=False), start=1):
            prompt, output = (text[:SHOWN_CHARACTERS] for text in shown)
            self.note(
                f"Completion {number} of the evaluation of step {self.state.global_step}",
                type=COMPLETION,
                step=self.state.global_step,
                number=number,
                prompt=prompt,
                output=output,
                scores=scores_of(rewarded),
            )

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Answer and grade: there is no loss to measure."""
        self._prepare_inputs(inputs)
        return None, None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log our own metrics in place of TRL's."""
        kept = self._metrics["train" if self.model.training else "eval"]
        if "loss" in logs:
            means = {name: kept[key] for key, name in KEPT_METRICS.items() if kept[key]}
            logs.update({name: sum(values) / len(values) for name, values in means.items()})
            logs.update(self.grader.tally.metrics())
            self.grader.tally = Tally()
        kept.clear()
        super().log(logs, start_time)  # type: ignore[misc]
