"""Mode LearningCurve: what is trained, and what it says of more data."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, FiniteNumber, Line, cel
from finetune_api.finetunejob import Percent


class LearningCurve(ApiModel):
    """Trainings on parts of the examples; smaller parts are inside larger ones of the same seed."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.percents.all(one, self.percents.exists_one(same, same == one))",
                "percents name each size once",
                "percents",
            ),
            (
                "self.percents.max() >= 4.0 * self.percents.min()",
                "the largest of percents is at least four times the smallest: a slope of closer ones is mere noise",
                "percents",
            ),
        )
    )

    percents: list[Percent] = Field(
        [6.25, 12.5, 25, 50, 100],
        min_length=4,
        max_length=10,
        description="Percentages of the training examples; the largest at least four times the smallest.",
    )
    seeds: int = Field(
        2,
        ge=2,
        le=10,
        description="Trainings of each size, with hyperparameters.seed and those after it.",
    )
    worthwhile_gain: float = Field(
        0.01, gt=0, le=1000, description="By how much the score must improve for twice the examples to be worth it."
    )


class CurvePoint(ApiModel):
    """The trials of one size."""

    examples: int = Field(description="Number of training examples.")
    score: float = Field(description="Mean of their scores.")
    low: FiniteNumber = Field(None, description="Lower bound of the mean's 90 % interval.")
    high: FiniteNumber = Field(None, description="Upper bound of it.")
    trials: int = Field(description="Number of trials with a score.")


class CurveStatus(ApiModel):
    """What twice the training examples would bring."""

    verdict: Literal["WorthIt", "NotWorthIt", "CantTell"] = Field(
        "CantTell",
        description="WorthIt, NotWorthIt: new trainings would measure a gain of worthwhileGain or more with a "
        "probability of 90 % or more, 10 % or less.",
    )
    message: Line = Field(description="The verdict in a sentence, with its numbers.")
    gain: FiniteNumber = Field(
        None,
        description="Median of the improvement of the mean score of learningCurve.seeds new trainings, if WorthIt.",
    )
    gain_low: FiniteNumber = Field(None, description="Lower bound of its 90 % prediction interval, if WorthIt.")
    gain_high: FiniteNumber = Field(None, description="Upper bound of it.")
    probability: FiniteNumber = Field(None, description="Probability that it is at least worthwhileGain.")
    points: list[CurvePoint] = Field(default=[], max_length=10, description="The measured sizes, the smallest first.")
