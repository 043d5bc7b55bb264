"""spec.adapter: which weights are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, Line, cel

AdapterType = Literal["LoRA", "QLoRA", "Full"]


class Freeze(ApiModel):
    """Weights that stay as they are."""

    layers: int = Field(0, ge=0, le=1000, description="The first so many layers.")
    embeddings: bool = Field(False, description="The token embeddings (and the output layer, if it shares them).")


class Adapter(ApiModel):
    """Which weights are trained."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.freeze) || self.type == 'Full'",
                "freeze needs type Full: LoRA leaves the model as it is",
            ),
            ("!has(self.inherited) || self.type != 'Full'", "inherited needs type LoRA: Full merges the adapter"),
            (
                "!has(self.inherited) || self.inherited != 'Merge' || self.type != 'QLoRA'",
                "inherited Merge needs type LoRA: nothing is merged into 4 bits",
            ),
        )
    )

    type: AdapterType = Field(
        "LoRA",
        description="LoRA: low-rank adapters. QLoRA: the same, upon a model that is kept in 4 bits (NF4), on "
        "accelerators. Full: every weight.",
    )
    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1, le=4096)
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the adapter's inputs. Weights of experts can't have any.")
    target_modules: list[Line] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        description="Module names, or all-linear: every matrix but embeddings, output layer and routers.",
    )
    inherited: Literal["Continue", "Merge"] | None = Field(
        None,
        description="What becomes of an adapter that model.fineTuneJobRef brings. Continue (the default): it is "
        "trained on, with its own rank, alpha, dropout and target modules. Merge: it is merged into its base, and a "
        "new one is trained; the result is then a whole model.",
    )
    freeze: Freeze | None = None
