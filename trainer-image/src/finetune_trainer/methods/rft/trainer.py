"""TRL's GRPOTrainer on prompts that are tokenized already, rewarded by the graders of an Evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RFT
from finetune_grading.exact_json import parse_json
from finetune_grading.registered_graders import load_graders
from finetune_grading.rewards import Reward, Rewarded
from finetune_grading.sample import Row
from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.checkpoint.training_state import random_states, set_random_states
from finetune_trainer.generate.generation import stop_tokens
from finetune_trainer.generate.output_samples import to_sample
from finetune_trainer.generate.tool_calls import response_template
from finetune_trainer.methods.method import TrainerParts
from finetune_trainer.methods.rft.first_rewards import FirstRewards
from finetune_trainer.methods.rft.prompts import PromptOrder
from finetune_trainer.methods.rft.tally import Tally, scores_of
from finetune_trainer.methods.samples import readable_prompt
from finetune_trainer.methods.shared_batches import LimitedWarmup
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.report.events import COMPLETION

LOSSES = {"DAPO": "dapo", "DrGRPO": "dr_grpo", "GRPO": "grpo"}
UNSCALED = "DrGRPO"
"""Its advantages are not divided by the standard deviation of the group."""
MOST_TOKENS_AT_ONCE = 32_768
"""Prompt and new tokens that are generated in one batch: bounds the key-value cache, and how long a SIGTERM waits."""
SHOWN_ERRORS = 3
SHOWN = 4
"""Completions of each evaluation that the report shows."""
SHOWN_CHARACTERS = 1000
KEPT_METRICS = {"entropy": "entropy", "frac_reward_zero_std": "groups_without_spread"}
"""Of TRL's own metrics; most others repeat ours."""


def build_rft_trainer(parts: TrainerParts, spec: RFT, reward: Reward) -> ResumableGRPOTrainer:
    """A step generates, grades and learns from `batchSize` prompts, and then is over: each is on-policy."""
    load_graders([grader.as_grader() for grader in spec.graders])
    prompts, completions = parts.arguments["per_device_train_batch_size"], spec.completions_per_prompt
    of_prompt = spec.evaluation.completions_per_prompt
    arguments = parts.arguments | {
        "per_device_train_batch_size": prompts * completions,
        "per_device_eval_batch_size": max(1, prompts * completions // of_prompt) * of_prompt,
        "remove_unused_columns": False,  # graders read them
        "include_num_input_tokens_seen": "no",  # TRL counts by itself
    }
    settings = GRPOConfig(
        **arguments,
        num_generations=completions,
        num_generations_eval=of_prompt,
        max_completion_length=spec.max_completion_tokens,
        temperature=spec.temperature,
        loss_type=LOSSES[spec.loss_type],
        scale_rewards="none" if spec.loss_type == UNSCALED else "group",
        beta=0.0,
    )
    model = parts.model
    model.generation_config.eos_token_id = stop_tokens(model.generation_config.eos_token_id, parts.processor)
    grader = CompletionGrader(parts.processor, reward, spec)
    trainer = ResumableGRPOTrainer(
        args=settings,
        model=model,
        reward_funcs=[grader.rewards],
        train_dataset=parts.training,
        eval_dataset=parts.validation,
        processing_class=parts.processor,
        callbacks=parts.callbacks,
    )
    trainer.grader = grader
    trainer.asked_to_stop, trainer.note = parts.asked_to_stop, parts.note
    return trainer


class CompletionGrader:
    """Rewards completions, and counts them in `tally`."""

    def __init__(self, tokenizer: Any, reward: Reward, spec: RFT) -> None:
        self.tally = Tally()
        self.evaluates = False
        """Whether the completions are to prompts of the validation set."""
        self._first = FirstRewards(spec.completions_per_prompt)
        self._tokenizer = tokenizer
        self._template = response_template(tokenizer)
        self._reward = reward
        self._most_errors_percent = spec.grader_errors.maximum_percent

    def rewards(
        self,
        prompts: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        item: Sequence[str],
        trainer_state: Any,
        **_: Any,
    ) -> list[float | None]:
        """TRL's reward function: a reward from 0 to 1 for each completion, and None for those that teach nothing.

        Raises DiagnosedError: GraderFailed when these are too many, RewardHasNoSignal when all are alike at first.
        """
        rows = [self._row(*one) for one in zip(prompts, completion_ids, item, strict=True)]
        rewarded = asyncio.run(self._reward.of(rows))
        missing = slice(max(0, SHOWN - len(self.tally.shown)))
        outputs = [row.sample.output_text for row in rows[missing]]
        texts = [readable_prompt(self._tokenizer, prompt) for prompt in prompts[missing]]
        self.tally.add([len(ids) for ids in completion_ids], rewarded, list(zip(texts, outputs, strict=True)))
        rewards = [one.reward for one in rewarded]
        if not self.evaluates:  # an evaluation is judged as a whole, not batch by batch
            self.refuse_errors(rewarded)
            self._first.add(trainer_state.global_step, rewards)
        return rewards

    def _row(self, prompt: Sequence[int], completion: Sequence[int], written: str) -> Row:
        item = parse_json(written)
        return Row(item, to_sample(self._tokenizer, self._template, item.get("tools") or (), prompt, completion))

    def refuse_errors(self, rewarded: Sequence[Rewarded]) -> None:
        """Raises DiagnosedError, with GraderFailed, if too many of a step's or an evaluation's were not graded."""
        errors = [one.total.error for one in rewarded if one.reward is None and one.total.error is not None]
        percent = 100 * len(errors) / max(1, len(rewarded))
        if percent <= self._most_errors_percent:
            return
        first = "; ".join(dict.fromkeys(f"{error.code}: {error.details}" for error in errors[:SHOWN_ERRORS]))
        raise DiagnosedError(
            Reason.GRADER_FAILED,
            f"{len(errors)} of {len(rewarded)} completions could not be graded, {percent:.0f} % "
            f"(method.rft.graderErrors.maximumPercent is {self._most_errors_percent:g}). The first: {first}",
        )


class ResumableGRPOTrainer(LimitedWarmup, Resumable, GRPOTrainer):
    """TRL's GRPOTrainer, with saves in the background and a step that can be given up while it generates.

    Each step generates its own completions, so a checkpoint of any step is one between two generations.
    """

    grader: CompletionGrader
    asked_to_stop: Any
    note: Any
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

    def _generate_single_turn(self, prompt_ids: list[list[int]], *inputs: Any, **more: Any) -> tuple[Any, None]:
        """A part at a time; with the precision of a training step, which adapters are in. Raises DisruptedError."""
        generated: list[list[int]] = []
        for part in self._parts(prompt_ids):
            self._stop_if_asked()
            with self.accelerator.autocast():
                completions, _ = super()._generate_single_turn(part, *inputs, **more)
            generated += completions
        return generated, None

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
        loss = super().training_step(*inputs, **more)
        self._states = random_states()
        return loss

    def evaluation_loop(self, *inputs: Any, **more: Any) -> Any:
        """Answer with the same randomness in every evaluation, so that they can be compared."""
        of_training, self.grader.tally, self.grader.evaluates = self.grader.tally, Tally(), True
        torch.manual_seed(self.args.seed)
        try:
            output = super().evaluation_loop(*inputs, **more)
            self.grader.refuse_errors(self.grader.tally.rewarded)
            measured = self.grader.tally.metrics()
            self._note_completions(self.grader.tally)
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
        super().log(logs, start_time)
