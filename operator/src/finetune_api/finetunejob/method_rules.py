"""What a training method allows in the rest of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.finetunejob.adapter import AdapterType
from finetune_api.finetunejob.dataset import DatasetFormat


@dataclass(frozen=True)
class MethodRules:
    """What a method allows in the rest of a spec, and the values chosen automatically."""

    formats: tuple[DatasetFormat, ...]
    """The example formats that it accepts."""
    learning_rates: Mapping[AdapterType, float]
    """The automatic peak learning rate."""
    most_epochs: int
    """The maximum number of passes over a small dataset that is chosen automatically."""
    packs: bool
    """Whether several examples may share a row (`hyperparameters.packing`)."""
    shards: bool
    """Whether the model may be sharded (`parallelism.strategy` FSDP)."""
    forgets: bool
    """Whether the automatic learning rate is lower for the result of another job, to reduce forgetting."""
    distributes: bool = True
    """Whether several processes may train one model."""
    has_validation_loss: bool = True
    """Whether an evaluation measures a loss (`checkpoints.best` by EvalLoss, `earlyStopping`, a sweep's objective)."""
    rewards: bool = False
    """Whether it learns from rewards: an evaluation measures one, and there must be a validation set."""
