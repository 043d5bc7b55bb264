"""Step 4: the optimizer steps, up to the last one or to a SIGTERM."""

from __future__ import annotations

from contextlib import ExitStack

import structlog
from peft.helpers import disable_input_dtype_casting

from finetune_trainer.checkpoint.saving import RunIsOverError
from finetune_trainer.model.adapters import uses_bfloat16
from finetune_trainer.model.kernels.packed_attention import attention_over_packed_rows
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.train.build_trainer import BuiltTrainer
from finetune_trainer.train.prepare import Start

_log = structlog.get_logger()


def fit(built: BuiltTrainer, start: Start) -> None:
    """Train to the last step, and commit its checkpoint.

    Raises DisruptedError after a SIGTERM, once the step that was reached is committed. Any other exception of a step is
    raised after the save in progress has had some time to end.
    """
    try:
        _train(built, start)
    except RunIsOverError:
        _log.info("training is complete: making the result")
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
        # Under autocast, peft would cast LoRA's inputs to float32 for nothing.
        settings.enter_context(disable_input_dtype_casting(trainer.model, active=uses_bfloat16()))
        trainer.train(resume_from_checkpoint=None if start.checkpoint is None else str(start.checkpoint))


def _close(built: BuiltTrainer) -> None:
    if built.sender is not None:
        built.sender.close()
