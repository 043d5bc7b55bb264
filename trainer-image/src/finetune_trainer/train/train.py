"""Training, from the run configuration to the committed result, in five steps through which data flows one way.

prepare (model and data on this node's disk), restore (the checkpoint to resume from), build_trainer (model in memory,
Trainer, callbacks), fit (the optimizer steps), publish (the result). Each is in a file of its own.
"""

from __future__ import annotations

from pathlib import Path

from finetune_api.outcome import TrainReport
from finetune_api.run import TrainRun
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.process.gpu_requirements import require_gpu_toolchain
from finetune_trainer.report.progress import ProgressReceiver
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.fit import fit
from finetune_trainer.train.prepare import Attempt, prepare, restore
from finetune_trainer.train.publish import find_published, publish


def run_training(run: TrainRun, directory: Path, gang: Gang, screen: ProgressReceiver | None = None) -> TrainReport:
    """Train, or continue training, and commit the result. All processes of the gang call it.

    `directory`: a scratch folder of this node, shared by its processes. `screen`: receives the progress, if the run
    names no endpoint for it.

    Raises DiagnosedError; DisruptedError after a SIGTERM, with the last step committed; FencedError, when another
    attempt holds the run.
    """
    require_gpu_toolchain()
    attempt = Attempt(run, gang, open_storage(run.storage, proven=True), directory)
    if (report := find_published(attempt)) is not None:
        return report
    inputs = prepare(attempt)
    start = restore(attempt)
    built = build_trainer(attempt, inputs, start, screen)
    fit(built, start)
    return publish(attempt, inputs, start.claim, built)
