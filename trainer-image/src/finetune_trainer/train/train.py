"""Training, from the run configuration to the committed result, in five steps through which data flows one way.

prepare (model and data on this node's disk) and restore (the checkpoint to resume from) are in prepare.py,
build_trainer (model in memory, Trainer, callbacks) is in build_trainer.py, fit (the optimizer steps) and publish (the
result) are below.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import structlog
import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting

from finetune_api.finetunejob import CorruptCheckpoint, Result
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.checkpoint import checkpoints, results, training_state
from finetune_trainer.checkpoint.saving import RunIsOverError
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.methods.samples import make_samples
from finetune_trainer.model.adapter_summary import adapter_summary
from finetune_trainer.model.adapters import (
    check_weights_changed,
    load_trainable_model,
    merge_adapter,
    trains_new_adapter,
    uses_bfloat16,
    weights_digest,
)
from finetune_trainer.model.export import write_model
from finetune_trainer.model.kernels.packed_attention import attention_over_packed_rows
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.process.gpu_requirements import require_gpu_toolchain
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.report.pages import FinishedRun, write_pages
from finetune_trainer.report.progress import ProgressReceiver
from finetune_trainer.report.summary import ResultOrigin, unchanged_loss
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.train.build_trainer import BuiltTrainer, build_trainer
from finetune_trainer.train.prepare import DATA, Attempt, Inputs, Start, prepare, restore
from finetune_trainer.train.training_data import data_digests

_log = structlog.get_logger()


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


def find_published(attempt: Attempt) -> TrainReport | None:
    """The report of a run whose result an earlier attempt has committed already. Raises DiagnosedError."""
    result = attempt.gang.from_leader(lambda: results.find_result(attempt.run, attempt.storage))
    if result is None:
        return None
    _log.info("the result is there already", uri=result.uri)
    kept = attempt.gang.from_leader(lambda: checkpoints.list_committed(attempt.storage, attempt.output))
    return _report(result, checkpoints.to_report(kept, (), attempt.run.checkpoints.best, None))


def fit(built: BuiltTrainer, start: Start) -> None:
    """Step 4: train to the last step, and commit its checkpoint.

    Raises DisruptedError after a SIGTERM, once the step that was reached is committed. Any other exception of a step is
    raised after the save in progress has had some time to end.
    """
    try:
        _take_steps(built, start)
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


def _take_steps(built: BuiltTrainer, start: Start) -> None:
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


def publish(attempt: Attempt, inputs: Inputs, claim: Claim, built: BuiltTrainer) -> TrainReport:
    """Step 5: commit the result, which is the model of the chosen checkpoint with its model card and report.

    Raises DiagnosedError, or FencedError.
    """
    log, writer = built.trainer.state.log_history, built.writer
    heartbeats.beat(Phase.SAVING, built.trainer.state.global_step)
    with log_progress("storing the result"):
        result, corrupt = attempt.gang.from_leader(lambda: _make_result(attempt, inputs, claim, built))
    writer.corrupt += corrupt
    if (events := built.events) is not None:
        events.add_corrupt(corrupt)
        events.add("New fine-tuned model created", type="result", uri=result.uri, step=result.step)
        if (warning := unchanged_loss(log, inputs.method.measures)) is not None:
            events.warn(warning)
        events.add("The job has successfully completed", type="completed", **writer.totals())
        events.store(log)
    _close(built)
    return _report(result, writer.checkpoint_report)


def _make_result(
    attempt: Attempt, inputs: Inputs, claim: Claim, built: BuiltTrainer
) -> tuple[Result, tuple[CorruptCheckpoint, ...]]:
    """Rank 0's part: restore the chosen checkpoint, write its model with its pages, and commit the folder.

    Also answers the checkpoints that would have been chosen, but are corrupt.
    """
    run, storage, writer = attempt.run, attempt.storage, built.writer
    folder, log = attempt.directory / "result", built.trainer.state.log_history
    chosen = results.fetch_chosen(
        run, storage, writer.kept, attempt.directory / "chosen", only=training_state.is_of_model
    )
    tuned = load_trainable_model(run, inputs.model) if attempt.is_sharded else built.trainer.model
    before = weights_digest(tuned) if built.initial_weights is None else built.initial_weights
    training_state.restore_model(chosen.checkpoint.path, tuned)
    starts_adapter = trains_new_adapter(run.adapter, inputs.model)
    highest_rate = max((entry["learning_rate"] for entry in log if "learning_rate" in entry), default=0.0)
    warning = check_weights_changed(
        before, weights_digest(tuned), new_adapter=starts_adapter, highest_rate=highest_rate
    )
    if warning is not None:
        _log.warning(warning)
    adapted = str(adapter_summary(tuned)) if isinstance(tuned, PeftModel) else None
    if starts_adapter and not results.is_adapter(run):
        tuned = merge_adapter(tuned)
    write_model(tuned, inputs.processor, inputs.model.base, folder)
    finished = FinishedRun(
        chosen=chosen.checkpoint.committed.manifest,
        kept=writer.kept,
        corrupt=(*writer.corrupt, *chosen.corrupt),
        log=log,
        totals=writer.totals(),
        data_digests=data_digests(attempt.directory / DATA),
        samples=make_samples(inputs.method, tuned, inputs.processor, inputs.model, inputs.sequences),
        metrics=inputs.method.metrics,
        measures=inputs.method.measures,
        completions=[] if built.events is None else built.events.completions(),
        origin=ResultOrigin(
            result_uri=commits.result_folder(claim.run, claim.number).uri,
            is_adapter=results.is_adapter(run),
            accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            adapted=adapted,
        ),
    )
    write_pages(run, storage, finished, folder)
    return results.make_result(run, storage, claim, chosen.checkpoint.committed, folder), chosen.corrupt


def _report(result: Result, report: CheckpointReport) -> TrainReport:
    return TrainReport(
        result=result,
        checkpoints=report.checkpoints,
        corrupt_checkpoints=report.corrupt,
        checkpoint_seconds=report.checkpoint_seconds,
    )
