"""Training, from the run configuration to the committed result, in five steps through which data flows one way.

prepare (model and data on this node's disk), restore (the checkpoint to go on from), build_trainer (model in memory,
Trainer, callbacks), fit (the optimizer steps), publish (the result).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import structlog
from peft.helpers import disable_input_dtype_casting

from finetune_api.outcome import TrainReport
from finetune_api.run import TrainRun
from finetune_trainer.checkpoint.saving import RunIsOverError
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.model.adapters import uses_bfloat16
from finetune_trainer.model.kernels.packed_attention import attention_over_packed_rows
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.process.gpu_requirements import require_gpu_toolchain
from finetune_trainer.report.progress import ProgressReceiver
from finetune_trainer.storage.local_storage import open_storage
from finetune_trainer.train.build_trainer import BuiltTrainer, build_trainer
from finetune_trainer.train.prepare import Attempt, Start, prepare, restore
from finetune_trainer.train.publish import find_published, publish


def train(run: TrainRun, directory: Path, gang: Gang, screen: ProgressReceiver | None = None) -> TrainReport:
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


_log = structlog.get_logger()


def fit(built: BuiltTrainer, start: Start) -> None:
    """Train to the last step, and commit its checkpoint.

    Raises DisruptedError after a SIGTERM, with the step that was reached committed; whatever makes a step fail, after
    the save under way was given some time to end.
    """
    try:
        _train(built, start)
    except RunIsOverError:
        _log.info("the run had come to its end: its result is made")
    except DisruptedError:
        built.saves.finish()
        built.progress.report(built.trainer.state)
        _close(built)
        raise
    except Exception:
        built.saves.abandon()
        raise
    built.saves.finish()
    built.writer.settle()
    built.progress.report(built.trainer.state)
    if built.stop.stopped:
        _close(built)
        raise DisruptedError(f"asked to stop at step {built.trainer.state.global_step}")


def _train(built: BuiltTrainer, start: Start) -> None:
    trainer = built.trainer
    with ExitStack() as settings:
        if built.packs:
            settings.enter_context(attention_over_packed_rows(trainer.model))
        # Under autocast, peft's copies of LoRA's inputs in the float32 of its weights would be made for nothing.
        settings.enter_context(disable_input_dtype_casting(trainer.model, active=uses_bfloat16()))
        trainer.train(resume_from_checkpoint=None if start.checkpoint is None else str(start.checkpoint))


def _close(built: BuiltTrainer) -> None:
    if built.sender is not None:
        built.sender.close()
