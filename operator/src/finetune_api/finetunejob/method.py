"""spec.method: the training method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from pydantic import Field

from finetune_api.base import ApiModel, LocalObjectReference
from finetune_api.finetunejob.method_rules import MethodRules
from finetune_api.finetunejob.rft import RFT
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf, TypedUnion

MethodType = Literal["SFT", "DPO", "RFT", "Distillation"]
Divergence = Literal["ReverseKL", "ForwardKL", "JSD"]
DEFAULT_BETA = 0.1


class SFT(ApiModel):
    """Supervised fine-tuning."""

    rules: ClassVar = MethodRules(
        formats=("Chat", "PromptCompletion"),
        learning_rates={"LoRA": 2e-4, "QLoRA": 2e-4, "Full": 2e-5},
        most_epochs=10,
        packs=True,
        shards=True,
        forgets=True,
    )

    prompt_loss_weight: float = Field(
        0.0, ge=0, le=1, description="Weight of the loss on prompt tokens. The assistant's tokens have weight 1."
    )

    def hyperparameters(self) -> dict[str, float]:
        """The settings that are part of a run's resolved hyperparameters."""
        return {}


class DPO(ApiModel):
    """Direct preference optimization: https://arxiv.org/abs/2305.18290."""

    rules: ClassVar = MethodRules(
        formats=("Preference",),
        # These already assume a fine-tuned model, so they are not lowered again.
        learning_rates={"LoRA": 2e-5, "QLoRA": 2e-5, "Full": 2e-6},
        most_epochs=3,  # it overfits
        packs=False,
        shards=False,
        forgets=False,
    )

    beta: float | None = Field(
        None,
        gt=0,
        le=2,
        description="How strongly the model is kept close to the one it starts from. Omitted: 0.1.",
    )
    loss_type: Literal["Sigmoid", "Hinge", "IPO"] = Field(
        "Sigmoid",
        description="Sigmoid: DPO's own loss. Hinge: SLiC's (https://arxiv.org/abs/2305.10425). IPO: https://arxiv.org/abs/2310.12036.",
    )

    def hyperparameters(self) -> dict[str, float]:
        """The settings that are part of a run's resolved hyperparameters."""
        return {"beta": DEFAULT_BETA if self.beta is None else self.beta}


class Teacher(OneOf):
    """The model to learn from. Its tokenizer is that of the model that learns."""

    choices = ("uri", "fine_tune_job_ref")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(
        None, description="The result that this FineTuneJob has when the run starts."
    )


class Distillation(ApiModel):
    """On-policy distillation: https://arxiv.org/abs/2306.13649."""

    rules: ClassVar = MethodRules(
        formats=("Reinforcement", "Chat", "PromptCompletion"),
        learning_rates={"LoRA": 1e-4, "QLoRA": 1e-4, "Full": 1e-5},
        most_epochs=3,
        packs=False,
        shards=False,
        forgets=False,  # the teacher says what is right, not examples
        distributes=False,
    )

    teacher: Teacher
    divergence: Divergence = Field(
        "ReverseKL",
        description="Of the teacher's token probabilities and the model's. ReverseKL keeps to what the teacher finds "
        "likely, ForwardKL covers all of it, JSD is between them.",
    )
    max_completion_tokens: int = Field(512, ge=1, le=32768, description="Maximum tokens of a completion.")
    temperature: float = Field(
        1.0, gt=0, le=2, description="Of the completions, and of the probabilities that are compared."
    )

    def hyperparameters(self) -> dict[str, float]:
        """The settings that are part of a run's resolved hyperparameters."""
        return {}


Settings = SFT | DPO | RFT | Distillation


class Method(TypedUnion):
    """The training method."""

    type: MethodType = Field(
        "SFT",
        description="SFT: supervised fine-tuning on the assistant's tokens. DPO: direct preference optimization on "
        "pairs of answers. RFT: reinforcement fine-tuning on the model's own completions, by the scores of graders. "
        "Distillation: a model learns on its own completions from the token probabilities of a teacher.",
    )
    sft: SFT | None = None
    dpo: DPO | None = None
    rft: RFT | None = None
    distillation: Distillation | None = None

    @property
    def settings(self) -> Settings:
        """The member of this type, or its defaults if omitted."""
        given: Settings | None = getattr(self, self.members()[self.type])
        return SETTINGS[self.type]() if given is None else given


SETTINGS: Mapping[MethodType, type[Settings]] = {
    kind: Method.member_model(Method.members()[kind]) for kind in get_args(MethodType)
}
"""The settings model of every method, by type."""
