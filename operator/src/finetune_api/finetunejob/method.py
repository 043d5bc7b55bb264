"""spec.method: the training method."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.unions import TypedUnion

MethodType = Literal["SFT", "DPO"]


class SFT(ApiModel):
    """Supervised fine-tuning."""

    prompt_loss_weight: float = Field(
        0.0, ge=0, le=1, description="Weight of the loss on prompt tokens. The assistant's tokens have weight 1."
    )


class DPO(ApiModel):
    """Direct preference optimization: https://arxiv.org/abs/2305.18290."""

    beta: float | None = Field(
        None,
        gt=0,
        le=2,
        description="How strongly the model is kept close to the one it starts from. Omitted: 0.1.",
    )
    loss_type: Literal["Sigmoid", "Hinge", "IPO"] = Field(
        "Sigmoid",
        description="Sigmoid: DPO's own loss. Hinge: SLiC's (https://arxiv.org/abs/2305.10425). IPO: https://arxiv.org/abs/2310.12036.",
    )


class Method(TypedUnion):
    """The training method."""

    type: MethodType = Field(
        "SFT",
        description="SFT: supervised fine-tuning, with the loss on the assistant's tokens. DPO: direct preference "
        "optimization, on pairs of a preferred and a rejected answer.",
    )
    sft: SFT | None = None
    dpo: DPO | None = None
