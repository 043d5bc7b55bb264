"""method.rft: reinforcement fine-tuning."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import ApiModel, cel
from finetune_api.finetunejob.method_rules import MethodRules
from finetune_api.graders import Grader, JsonSchema, ShortName, StringCheck, TextSimilarity, ToolCallMatch
from finetune_api.kubernetes_types import keyed_by
from finetune_api.unions import TypedUnion

Formula = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class RewardGrader(TypedUnion):
    """Scores each completion from 0 to 1, as that of an Evaluation does."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.textSimilarity) || self.textSimilarity.metric != 'Cosine'",
                "metric Cosine asks a model of the class, which a reward can't",
                "textSimilarity.metric",
            )
        )
    )

    name: ShortName = Field(description="Its name in reward.")
    type: Literal["StringCheck", "TextSimilarity", "JsonSchema", "ToolCall"] = Field(description="As in an Evaluation.")
    string_check: StringCheck | None = None
    text_similarity: TextSimilarity | None = None
    json_schema: JsonSchema | None = None
    tool_call: ToolCallMatch | None = None

    def as_grader(self) -> Grader:
        """The same as an Evaluation's."""
        return Grader.from_wire(self.to_wire())


class RewardEvaluation(ApiModel):
    """The evaluation on dataset.validation at each checkpoint."""

    completions_per_prompt: int = Field(1, ge=1, le=16, description="Completions to each prompt.")


class GraderErrors(ApiModel):
    """Completions that can't be graded; they teach nothing."""

    maximum_percent: float = Field(20, ge=0, le=100, description="Of a step's completions; beyond it, the run fails.")


class RewardStop(ApiModel):
    """Ends the run as Failed (RewardHackingSuspected) at signs that the model games the graders."""

    gap_above: float = Field(0.2, gt=0, le=1, description="Training reward minus that on dataset.validation.")
    completion_growth_above: float | None = Field(
        None, gt=1, le=1000, description="Tokens of a completion, as a multiple of those at first."
    )
    after_evaluations: int = Field(3, ge=1, le=100, description="Evaluations in a row with one of them.")


class RFT(ApiModel):
    """Reinforcement fine-tuning (GRPO, RLOO): https://arxiv.org/abs/2402.03300."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.reward) || size(self.graders) == 1",
                "reward is required with several graders",
                "reward",
            )
        )
    )

    rules: ClassVar = MethodRules(
        formats=("Reinforcement",),
        learning_rates={"LoRA": 2e-5, "QLoRA": 2e-5, "Full": 1e-6},
        most_epochs=3,
        packs=False,
        shards=False,
        forgets=False,  # it starts from a fine-tuned model as a rule, and the rates assume one
        distributes=False,
        has_validation_loss=False,
        rewards=True,
    )

    graders: list[RewardGrader] = Field(
        min_length=1, max_length=8, json_schema_extra=keyed_by("name"), description="Graders that score a completion."
    )
    reward: Formula | None = Field(
        None,
        description="A grader's name, or a formula: `0.8*exact + 0.2*schema`. Omitted: the only grader.",
    )
    completions_per_prompt: int = Field(
        8,
        ge=2,
        le=64,
        description="Completions to each prompt, compared with each other.",
    )
    max_completion_tokens: int = Field(512, ge=1, le=32768, description="Maximum tokens of a completion.")
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature.")
    kl_coefficient: float = Field(
        0.0, ge=0, le=1, description="How strongly the model is kept close to the one it starts from."
    )
    loss_type: Literal["DAPO", "DrGRPO", "GRPO", "RLOO"] = Field(
        "DAPO",
        description="How tokens are weighted, and answers compared; docs/how-to/rft.md.",
    )
    evaluation: RewardEvaluation = RewardEvaluation()
    grader_errors: GraderErrors = GraderErrors()
    stop: RewardStop | None = None

    def hyperparameters(self) -> dict[str, float]:
        """The settings that are part of a run's resolved hyperparameters."""
        return {}
