"""spec.adapter: which weights to train."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line
from finetune_api.kubernetes_types import SET
from finetune_api.unions import TypedUnion

AdapterType = Literal["LoRA", "QLoRA", "Full"]


class LoRA(ApiModel):
    """Low-rank adaptation: https://arxiv.org/abs/2106.09685."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of the two matrices trained for each target module.")
    alpha: int = Field(32, ge=1, le=4096, description="The adapter's output is scaled by alpha / rank.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on the adapter's inputs. Must be 0 if expert weights are adapted."
    )
    target_modules: list[Line] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        json_schema_extra=SET,
        description="Module names, or all-linear: every matrix except embeddings, output layer and routers.",
    )
    inherited: Literal["Continue", "Merge"] | None = Field(
        None,
        description="What to do with the adapter of model.fineTuneJobRef. Continue (default): train it further, with "
        "its own rank, alpha, dropout and target modules. Merge: merge it and train a new one; the "
        "result is a full model.",
    )


class QLoRA(LoRA):
    """Low-rank adaptation of a 4-bit model: https://arxiv.org/abs/2305.14314."""

    inherited: Literal["Continue"] | None = Field(
        None,
        description="Continue: train the adapter of model.fineTuneJobRef further. It can't be merged into a 4-bit "
        "model.",
    )


class Freeze(ApiModel):
    """Weights that are not trained."""

    layers: int = Field(0, ge=0, le=1000, description="Number of layers to freeze, from the first.")
    embeddings: bool = Field(
        False, description="Freeze the token embeddings, and the output layer if it shares their weights."
    )


class Full(ApiModel):
    """Trains every weight that is not frozen. The adapter of model.fineTuneJobRef, if any, is merged first."""

    freeze: Freeze | None = Field(None, description="Weights that are not trained. Omitted: none.")


class Adapter(TypedUnion):
    """Which weights to train."""

    type: AdapterType = Field(
        "LoRA",
        description="LoRA: low-rank adapters. QLoRA: the same on a model quantized to 4 bits (NF4); needs an "
        "accelerator. Full: every weight.",
    )
    lora: LoRA | None = None
    qlora: QLoRA | None = None
    full: Full | None = None

    @property
    def low_rank(self) -> LoRA:
        """The low-rank adapter, with defaults filled in; for type Full, one with only defaults."""
        return self.lora or self.qlora or LoRA()

    @property
    def inherited(self) -> Literal["Continue", "Merge"] | None:
        """What to do with the model's own adapter, if the spec says so."""
        return self.low_rank.inherited

    @property
    def freeze(self) -> Freeze | None:
        """The weights that full fine-tuning leaves unchanged."""
        return None if self.full is None else self.full.freeze
