"""Mode SmallestModel: which models are tried, and what one must reach."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import ApiModel, Line
from finetune_api.evaluation import Gate
from finetune_api.finetuneclass import Prices
from finetune_api.graders import ModelName
from finetune_api.kubernetes_types import SET

MOST_SIZES = 16


class SmallestModel(ApiModel):
    """The candidates, of which the smallest that passes every gate is the best."""

    models: list[ModelName] = Field(
        default=[],
        max_length=MOST_SIZES,
        json_schema_extra=SET,
        description="Names of models with `base` in spec.models of the FineTuneClass. Omitted: all that may be tuned "
        "with adapter.type, and whose context is long enough.",
    )
    gates: list[Gate] = Field(
        min_length=1,
        max_length=16,
        description="As in an Evaluation: thresholds that a model must reach, all of them. An Inconclusive one is not "
        "reached.",
    )


class SizedModel(ApiModel):
    """A candidate, as the class listed it when the run began."""

    name: ModelName = Field(description="Its name in spec.models of the class.")
    uri: Line = Field(description="The model that is fine-tuned.")
    parameters: int = Field(description="Number of its parameters.")
    license: Line | None = Field(None, description="Its licence.")
    prices: Prices | None = None
