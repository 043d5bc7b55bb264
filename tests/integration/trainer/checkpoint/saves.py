"""Checkpoints of a few bytes that tell who wrote them, saved and resumed as a training would."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.finetunejob import Best, CorruptCheckpoint, Parallelism
from finetune_api.sources import StorageLocation
from finetune_trainer.checkpoint import checkpoints, retention
from finetune_trainer.checkpoint.checkpoints import LocalCheckpoint
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.ranks import ranks_alone_on_node
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim, Committed
from finetune_trainer.storage.storage import Storage

ALONE = Gang(ranks_alone_on_node(Parallelism(), {}))
KEEP = 2
BEST = Best()


def content(step: int, claim: int) -> dict[str, bytes]:
    """The files of a checkpoint."""
    return {"model/weights": f"step {step} of claim {claim}".encode(), "state": bytes([step % 251]) * step}


def files(contents: dict[str, bytes]) -> dict[str, Path | memoryview]:
    return {path: memoryview(body) for path, body in contents.items()}


def read_back(checkpoint: LocalCheckpoint) -> dict[str, bytes]:
    return {
        path.relative_to(checkpoint.path).as_posix(): path.read_bytes()
        for path in checkpoint.path.rglob("*")
        if path.is_file()
    }


def loss_at(step: int) -> float:
    """Some losses are better than later ones."""
    return float((step * 7) % 13)


@dataclass
class Process:
    """A process that holds a run, or thinks that it does."""

    storage: Storage
    claim: Claim
    kept: tuple[Committed, ...] = ()
    corrupt: tuple[CorruptCheckpoint, ...] = ()
    resumed: LocalCheckpoint | None = None
    acknowledged: list[Committed] = field(default_factory=list)

    @property
    def step(self) -> int:
        return self.kept[-1].manifest.step if self.kept else 0

    def commit(self, step: int, contents: dict[str, bytes] | None = None) -> Committed:
        """Commit a checkpoint, without a removal of others."""
        contents = contents or content(step, self.claim.number)
        metrics = {"evalLoss": loss_at(step)}
        committed = checkpoints.commit(
            ALONE, self.storage, self.claim, files(contents), step=step, metrics=metrics, kept=self.kept
        )
        if committed not in self.kept:
            self.kept = (*self.kept, committed)
            self.acknowledged.append(committed)
        return committed

    def prune(self) -> None:
        self.kept = retention.prune(self.storage, self.claim, self.kept, keep=KEEP, best=BEST)

    def save(self, *steps: int) -> Committed:
        """Commit checkpoints, the older ones removed after each."""
        for step in steps:
            self.commit(step)
            self.prune()
        return self.kept[-1]


def start(
    storage: Storage, run: StorageLocation, directory: Path, attempt: int = 1, *, start_over_if_corrupt: bool = False
) -> Process:
    """Claim a run, and resume it. Raises as `claim` and `resume` do."""
    claim = commits.claim(storage, run, attempt)
    resumed = checkpoints.resume(
        ALONE,
        storage,
        claim,
        directory / f"claim-{claim.number}",
        start_over_if_corrupt=start_over_if_corrupt,
    )
    return Process(storage, claim, resumed.kept, resumed.corrupt, resumed.checkpoint)
