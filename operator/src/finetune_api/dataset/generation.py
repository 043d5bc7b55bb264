"""spec.generate of a Dataset: completions of a teacher to prompts, filtered by graders; and what became of them."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from finetune_api.base import MOST_EXAMPLES, ApiModel, Line, cel
from finetune_api.dataset_reference import DatasetRef, PinnedRevision
from finetune_api.evaluation import MOST_GRADERS, Endpoint
from finetune_api.finetunejob import DatasetSource
from finetune_api.graders import Grader, ShortName
from finetune_api.kubernetes_types import keyed_by
from finetune_api.model_usage import Budget
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf

PROMPTS = "prompts"
"""The name of the part of a dataset whose examples are generated."""
MOST_COMPLETIONS = 200_000
"""Of all prompts: they are in the Pod's memory."""


class Prompts(DatasetSource):
    """Examples whose last answer, if they have one, is not sent: graders may read it."""

    choices = (*DatasetSource.choices, "dataset_ref")

    dataset_ref: DatasetRef | None = Field(None, description="A split of another Dataset.")
    max_examples: int | None = Field(None, ge=1, le=MOST_EXAMPLES, description="Use the first ones. Omitted: all.")


class GeneratingModel(OneOf):
    """The model that completes the prompts."""

    choices = ("endpoint", "uri")

    endpoint: Endpoint | None = Field(None, description="Ask a model of the class through its API.")
    uri: ModelUri | None = Field(
        None, description="s3://bucket/folder or hf://org/name@revision: loaded, with the class's evaluation resources."
    )


class Generate(ApiModel):
    """Completions of a teacher to prompts."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.samplesPerPrompt) || self.samplesPerPrompt == 1 || !has(self.temperature) || "
                "self.temperature > 0.0",
                "samplesPerPrompt needs a temperature above 0: greedy completions are all the same",
                "samplesPerPrompt",
            ),
            (
                "!has(self.bestBy) || (has(self.graders) && self.graders.exists(one, one.name == self.bestBy))",
                "bestBy names one of the graders",
                "bestBy",
            ),
            (
                "!has(self.graders) || self.graders.all(one, one.type != 'Pairwise')",
                "a Pairwise grader compares with a baseline, and there is none",
                "graders",
            ),
            (
                "!has(self.graders) || self.graders.all(one, !(has(one.scoreModel) && has(one.scoreModel.calibration)) "
                "&& !(has(one.labelModel) && has(one.labelModel.calibration)))",
                "calibration is for Evaluations: test the model that grades in one",
                "graders",
            ),
        )
    )

    prompts: Prompts
    teacher: GeneratingModel
    samples_per_prompt: int = Field(1, ge=1, le=64, description="Completions to each prompt.")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature. 0: greedy.")
    max_tokens: int = Field(
        1024, ge=1, le=32768, description="Maximum number of tokens of a completion. One that ends there is left out."
    )
    graders: list[Grader] = Field(
        default=[],
        max_length=MOST_GRADERS,
        json_schema_extra=keyed_by("name"),
        description="Only completions that pass every grader (passThreshold) are kept; a grader that a Multi reads "
        "counts in that alone. Empty: all are.",
    )
    best_by: ShortName | None = Field(
        None, description="Keep of each prompt's completions the one with the highest score by this grader only."
    )
    budget: Budget | None = Field(
        None,
        description="How much teacher and graders may ask models of the class in the run. At the limit no more "
        "completions are made or graded, and the rest is left out. Omitted: no limit.",
    )


class NotKept(ApiModel):
    """Completions that are not in the dataset, by cause."""

    no_answer: int = Field(0, description="The API failed, or withheld it.")
    over_budget: int = Field(0, description="generate.budget was used up before it was made or graded.")
    refused: int = Field(0, description="The teacher declined.")
    truncated: int = Field(0, description="It ended at generate.maxTokens.")
    unusable: int = Field(0, description="It is empty, or calls what is not among the prompt's tools.")
    ungraded: int = Field(0, description="A grader could not grade it.")
    not_passed: int = Field(0, description="A grader does not pass it.")
    not_best: int = Field(0, description="Another one to the same prompt has a higher score (generate.bestBy).")


class GeneratedStatus(ApiModel):
    """What was generated; generation.jsonl in the run's folder has every completion."""

    teacher: Line = Field(description="Name of the class's model, or the URI.")
    teacher_digest: Line | None = Field(None, description="What tells it from another one at the same place, if known.")
    prompts: int = Field(description="Number of prompts.")
    completions: int = Field(description="Number of completions that were asked for.")
    kept: int = Field(description="Number of those that were kept, before duplicates and the like are left out.")
    not_kept: NotKept | None = Field(None, description="Absent: all were kept.")


class GenerationContent(GeneratedStatus):
    """What a revision's examples were generated from, and how."""

    settings: Generate
    prompts_revision: PinnedRevision | None = Field(None, description="What prompts.datasetRef was.")
