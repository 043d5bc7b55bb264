"""spec.method: how to train."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.unions import TypedUnion

MethodType = Literal["SFT", "DPO"]


class SFT(ApiModel):
    """Supervised fine-tuning."""

    prompt_loss_weight: float = Field(
        0.0, ge=0, le=1, description="Weight of the loss on the prompt's tokens; the assistant's count 1."
    )


class DPO(ApiModel):
    """Direct preference optimization: https://arxiv.org/abs/2305.18290."""

    beta: float | None = Field(
        None, gt=0, le=2, description="How strongly the model is held to the one that it starts from. Omitted: 0.1."
    )
    loss_type: Literal["Sigmoid", "Hinge", "IPO"] = Field(
        "Sigmoid",
        description="Sigmoid: DPO's own loss. Hinge: SLiC's (https://arxiv.org/abs/2305.10425). IPO: https://arxiv.org/abs/2310.12036.",
    )


class Method(TypedUnion):
    """How to train."""

    type: MethodType = Field(
        "SFT",
        description="SFT: supervised fine-tuning, loss on the assistant's tokens. DPO: on pairs of a preferred and a "
        "rejected answer.",
    )
    sft: SFT | None = None
    dpo: DPO | None = None
