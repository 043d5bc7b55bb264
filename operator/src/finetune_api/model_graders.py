"""Graders that ask another model: settings of each type. No kind has them yet: they need the class's judges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import ApiModel, Text
from finetune_api.graders import ShortName
from finetune_api.unions import TypedUnion

Label = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Message(ApiModel):
    """A message to the judge."""

    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: Text = Field(
        description="Template. Fields of the example are inserted as text; parts of the output are quoted in a message "
        "of their own at the end, so that instructions in them are not followed."
    )


class JudgeSampling(ApiModel):
    """How the judge generates its reply."""

    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature. 0: greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    seed: int = Field(1, ge=0, le=4294967295, description="Seed for sampling, where the judge supports it.")
    max_tokens: int = Field(1024, ge=1, le=32768, description="Maximum number of tokens of a reply.")


class ScoreModel(ApiModel):
    """OpenAI's score_model grader: the judge's number within a range, as a score from 0 to 1."""

    judge: ShortName = Field(description="Name of the judge.")
    input: list[Message] = Field(min_length=1, max_length=16, description="What the judge is asked.")
    range: tuple[float, float] = Field((0.0, 1.0), description="Least and greatest number; others are clamped to them.")
    sampling: JudgeSampling = JudgeSampling()


class LabelModel(ApiModel):
    """OpenAI's label_model grader: 1 if the judge chooses a passing label, otherwise 0."""

    judge: ShortName = Field(description="Name of the judge.")
    input: list[Message] = Field(min_length=1, max_length=16, description="What the judge is asked.")
    labels: list[Label] = Field(min_length=2, max_length=32, description="Labels to choose from.")
    passing_labels: list[Label] = Field(min_length=1, max_length=32, description="Labels of an output that passes.")
    sampling: JudgeSampling = JudgeSampling()


class Pairwise(ApiModel):
    """1 if the judge prefers the output to the baseline's, 0 if it prefers the baseline's, otherwise 0.5."""

    judge: ShortName = Field(description="Name of the judge.")
    criteria: Text = Field(description="Template that says what makes one output better than another.")
    both_orders: bool = Field(
        True, description="Ask twice, with the outputs in both orders; a preference counts only if both replies agree."
    )
    sampling: JudgeSampling = JudgeSampling()


class EmbeddingSimilarity(ApiModel):
    """OpenAI's text_similarity grader with cosine: the cosine of two embeddings, and 0 if it is negative."""

    embedder: ShortName = Field(description="Name of the embedding model, which is part of what a score means.")
    input: Text = Field("{{sample.output_text}}", description="Template for the text to grade.")
    reference: Text = Field("{{item.reference}}", description="Template for the text to compare with.")


class ModelGrader(TypedUnion):
    """Scores each output from 0 to 1, by another model."""

    name: ShortName = Field(description="Name of the grader in gates and results.")
    type: Literal["ScoreModel", "LabelModel", "Pairwise", "EmbeddingSimilarity"] = Field(
        description="Type of grader; its settings are in the member of the same name."
    )
    pass_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum score of an output that passes. Omitted: 1 for LabelModel, otherwise 0.5.",
    )
    score_model: ScoreModel | None = None
    label_model: LabelModel | None = None
    pairwise: Pairwise | None = None
    embedding_similarity: EmbeddingSimilarity | None = None
