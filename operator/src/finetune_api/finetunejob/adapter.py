"""spec.adapter: which weights are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line
from finetune_api.kubernetes_types import SET
from finetune_api.unions import TypedUnion

AdapterType = Literal["LoRA", "QLoRA", "Full"]


class LoRA(ApiModel):
    """A low-rank adapter: https://arxiv.org/abs/2106.09685."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of the two matrices that are trained beside each weight.")
    alpha: int = Field(32, ge=1, le=4096, description="The adapter's output is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the adapter's inputs. Weights of experts can't have any.")
    target_modules: list[Line] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        json_schema_extra=SET,
        description="Module names, or all-linear: every matrix but embeddings, output layer and routers.",
    )
    inherited: Literal["Continue", "Merge"] | None = Field(
        None,
        description="What becomes of an adapter that model.fineTuneJobRef brings. Continue (the default): it is "
        "trained on, with its own rank, alpha, dropout and target modules. Merge: it is merged into its base, and a "
        "new one is trained; the result is then a whole model.",
    )


class QLoRA(LoRA):
    """A low-rank adapter upon a model in 4 bits: https://arxiv.org/abs/2305.14314."""

    inherited: Literal["Continue"] | None = Field(
        None,
        description="What becomes of an adapter that model.fineTuneJobRef brings: it is trained on. Nothing can be "
        "merged into 4 bits.",
    )


class Freeze(ApiModel):
    """Weights that stay as they are."""

    layers: int = Field(0, ge=0, le=1000, description="Number of leading layers to freeze.")
    embeddings: bool = Field(False, description="The token embeddings (and the output layer, if it shares them).")


class Full(ApiModel):
    """Every weight, but for those that are frozen. An adapter that model.fineTuneJobRef brings is merged first."""

    freeze: Freeze | None = Field(None, description="Weights that stay as they are. Omitted: none.")


class Adapter(TypedUnion):
    """Which weights are trained."""

    type: AdapterType = Field(
        "LoRA",
        description="LoRA: low-rank adapters. QLoRA: the same, upon a model that is kept in 4 bits (NF4), on "
        "accelerators. Full: every weight.",
    )
    lora: LoRA | None = None
    qlora: QLoRA | None = None
    full: Full | None = None

    @property
    def low_rank(self) -> LoRA:
        """The low-rank adapter, with its defaults; for type Full the one that would be made by default."""
        return self.lora or self.qlora or LoRA()

    @property
    def inherited(self) -> Literal["Continue", "Merge"] | None:
        """What becomes of an adapter that the model brings, where the spec says it."""
        return self.low_rank.inherited

    @property
    def freeze(self) -> Freeze | None:
        """The weights that stay as they are where every other is trained."""
        return None if self.full is None else self.full.freeze
