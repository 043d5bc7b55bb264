"""Step 4: the optimizer steps, with their evaluations and checkpoints."""

from __future__ import annotations

from contextlib import ExitStack

import structlog
from peft.helpers import disable_input_dtype_casting

from finetune_trainer.checkpoint.resumable import RunIsOverError
from finetune_trainer.model.kernels.packed_attention import attention_over_packed_rows
from finetune_trainer.model.trainable import uses_bfloat16
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.train.build_trainer import BuiltTrainer
from finetune_trainer.train.restore import Start

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
