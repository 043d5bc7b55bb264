"""What the trials of a sweep are compared by."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, cel
from finetune_api.dataset_reference import DatasetRef
from finetune_api.evaluation import MOST_GRADERS, MeasuringSpec
from finetune_api.graders import GraderType, ShortName
from finetune_api.kubernetes_types import keyed_by
from finetune_api.sources import DatasetUri
from finetune_api.unions import OneOf, TypedUnion


class TemplatedGrader(ApiModel):
    """A grader, as in an Evaluation (`kubectl explain eval.spec.graders`): all its settings may be set.

    The whole schema would make this CRD half as large again; the operator checks the rest before a trial starts.
    """

    model_config = ConfigDict(extra="allow")

    name: ShortName = Field(description="Name of the grader in the results.")
    type: GraderType = Field(description="Type of grader; its settings are in the member of the same name.")


class Measuring(MeasuringSpec):
    """What an Evaluation of a trial measures, on which data."""

    graders: list[TemplatedGrader] = Field(  # type: ignore[assignment] # checked before a trial starts
        min_length=1,
        max_length=MOST_GRADERS,
        json_schema_extra=keyed_by("name"),
        description="Graders to apply to each output.",
    )


class EvaluationTemplate(ApiModel):
    """The Evaluations that are made."""

    spec: Measuring = Field(
        description="As in an Evaluation, without runId, suspend, cancel, candidates, baseline and gates. className "
        "omitted: that of template.spec."
    )


class Holdout(OneOf):
    """Examples that neither the training nor the Evaluations of the trials use. All else is as in template."""

    choices = ("uri", "dataset_ref")

    uri: DatasetUri | None = Field(None, description="As template.spec.dataset.uri.")
    dataset_ref: DatasetRef | None = Field(None, description="A split of a Dataset.")


class GraderScore(ApiModel):
    """The mean score of a trial's model from a grader, by an Evaluation of each trial."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.template.spec.graders.exists(one, one.name == self.grader)",
                "grader names one of template.spec.graders",
                "grader",
            ),
            (
                "!has(self.holdout) || !has(self.holdout.uri) || !has(self.template.spec.dataset.uri) || "
                "self.holdout.uri != self.template.spec.dataset.uri",
                "the trials are compared on template.spec.dataset: holdout has other examples",
                "holdout.uri",
            ),
        )
    )

    template: EvaluationTemplate
    grader: ShortName = Field(description="Name of the grader in template.spec.graders whose score counts.")
    goal: Literal["Maximize", "Minimize"] = Field("Maximize", description="Whether the highest or the lowest is best.")
    holdout: Holdout | None = Field(
        None,
        description="The best trial is evaluated once more, on these examples: the best of many scores is partly luck.",
    )


class Objective(TypedUnion):
    """What the trials are compared by."""

    type: Literal["EvalLoss", "Evaluation"] = Field(
        "EvalLoss",
        description="EvalLoss: the loss on template.spec.dataset.validation, lower is better. Evaluation: the score of "
        "a grader.",
    )
    evaluation: GraderScore | None = Field(
        None, description="Each trial that succeeded is evaluated, together with its base model."
    )
