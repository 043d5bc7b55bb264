"""TRL's GRPOTrainer and RLOOTrainer, rewarded by the graders of an Evaluation."""

from __future__ import annotations

from typing import Any

from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import add_fused_lm_head

from finetune_api.finetunejob import RFT
from finetune_grading.registered_graders import load_graders
from finetune_grading.rewards import Reward
from finetune_trainer.generate.generation import stop_tokens
from finetune_trainer.methods.method import TrainerParts
from finetune_trainer.methods.rft.grading import CompletionGrader
from finetune_trainer.methods.rft.hacking import WatchRewards
from finetune_trainer.methods.rft.rollouts import Rollouts
from finetune_trainer.model.adapters import load_frozen_model, trains_new_adapter

LOSSES = {"DAPO": "dapo", "DrGRPO": "dr_grpo", "GRPO": "grpo"}
UNSCALED = "DrGRPO"
"""Its advantages are not divided by the standard deviation of the group."""
REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of an adapter."""


class ResumableGRPOTrainer(Rollouts, GRPOTrainer):
    """Group-relative policy optimization: Shao et al., "DeepSeekMath" (2024), section 4."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *inputs: Any, **more: Any) -> tuple[Any, None]:
        generate = super()._generate_single_turn
        return self.generated(prompt_ids, lambda part: generate(part, *inputs, **more)[0]), None


class ResumableRLOOTrainer(Rollouts, RLOOTrainer):
    """REINFORCE, with the mean of the other answers as baseline: Ahmadian et al. (2024), arXiv 2402.14740."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *inputs: Any, **more: Any) -> list[list[int]]:
        generate = super()._generate_single_turn
        return self.generated(prompt_ids, lambda part: generate(part, *inputs, **more))


def build_rft_trainer(parts: TrainerParts, spec: RFT, reward: Reward) -> Rollouts:
    """A step generates, grades and learns from `batchSize` prompts, and then is over: each is on-policy."""
    load_graders([grader.as_grader() for grader in spec.graders])
    settings = _settings(parts, spec)
    model = parts.model
    model.generation_config.eos_token_id = stop_tokens(model.generation_config.eos_token_id, parts.processor)
    grader = CompletionGrader(parts.processor, reward, spec)
    build: Any = ResumableRLOOTrainer if spec.loss_type == "RLOO" else ResumableGRPOTrainer
    trainer: Any = build(
        args=settings,
        model=model,
        reward_funcs=[grader.rewards],
        train_dataset=parts.training,
        eval_dataset=parts.validation,
        processing_class=parts.processor,
        callbacks=parts.callbacks,
    )
    trainer.grader, trainer.completions_per_prompt = grader, spec.completions_per_prompt
    trainer.asked_to_stop, trainer.note = parts.asked_to_stop, parts.note
    trainer.add_callback(WatchRewards(spec.stop, parts.note))
    if spec.kl_coefficient > 0:
        _keep_reference(trainer, parts, spec)
    return trainer  # type: ignore[no-any-return]


def _settings(parts: TrainerParts, spec: RFT) -> GRPOConfig | RLOOConfig:
    prompts, completions = parts.arguments["per_device_train_batch_size"], spec.completions_per_prompt
    of_prompt = spec.evaluation.completions_per_prompt
    arguments = parts.arguments | {
        "per_device_train_batch_size": prompts * completions,
        "per_device_eval_batch_size": max(1, prompts * completions // of_prompt) * of_prompt,
        "remove_unused_columns": False,  # graders read them
        "include_num_input_tokens_seen": "no",  # TRL counts by itself
        "num_generations": completions,
        "num_generations_eval": of_prompt,
        "max_completion_length": spec.max_completion_tokens,
        "temperature": spec.temperature,
        # TRL would load the reference of Full from the hub: _keep_reference does it.
        "beta": 0.0 if parts.adapter.type == "Full" else spec.kl_coefficient,
    }
    if spec.loss_type == "RLOO":
        return RLOOConfig(**arguments)
    scaled = "none" if spec.loss_type == UNSCALED else "group"
    return GRPOConfig(**arguments, loss_type=LOSSES[spec.loss_type], scale_rewards=scaled)


def _keep_reference(trainer: Any, parts: TrainerParts, spec: RFT) -> None:
    """The model that the run starts from, which the trained one is kept close to.

    Of a new adapter it is the model with the adapter disabled, of an inherited one a frozen copy of it, which TRL has
    made; of Full a second model, as DPO's.
    """
    if parts.adapter.type != "Full":
        if trains_new_adapter(parts.adapter, parts.source):
            trainer.model.delete_adapter(REFERENCE_ADAPTER)  # a new adapter changes nothing yet: the base is the same
        return
    reference = load_frozen_model(parts.source)
    add_fused_lm_head(reference, temperature=spec.temperature)
    trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)
    trainer.beta = spec.kl_coefficient
