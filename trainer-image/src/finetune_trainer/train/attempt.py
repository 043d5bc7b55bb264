"""An attempt at a run, as every step of it needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_api.run import TrainRun
from finetune_api.sources import S3Location, parse_location
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.storage.storage import Storage


@dataclass(frozen=True)
class Attempt:
    """One process's share of an attempt to train a run."""

    run: TrainRun
    gang: Gang
    storage: Storage
    directory: Path
    """This node's scratch folder, shared by its processes."""

    @property
    def output(self) -> S3Location:
        """The run's folder in the storage."""
        return parse_location(self.run.output_uri)

    @property
    def is_sharded(self) -> bool:
        """Whether the model is spread over several processes (FSDP), instead of being whole in each of them."""
        return self.run.parallelism.strategy == "FSDP" and not self.gang.alone
