"""method.distillation: a model learns from the token probabilities of another."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_api.base import ApiModel, LocalObjectReference
from finetune_api.finetunejob.method_rules import MethodRules
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf

Divergence = Literal["ReverseKL", "ForwardKL", "JSD"]


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
