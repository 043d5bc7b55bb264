"""Step 5: the result, which is the model of the chosen checkpoint with its model card and report, committed."""

from __future__ import annotations

import structlog
import torch
from peft import PeftModel

from finetune_api.finetunejob import CorruptCheckpoint, Result
from finetune_api.outcome import TrainReport
from finetune_api.progress import CheckpointReport
from finetune_trainer.checkpoint import checkpoints, results, training_state
from finetune_trainer.methods.samples import make_samples
from finetune_trainer.model.adapter_summary import adapter_summary
from finetune_trainer.model.adapters import (
    check_weights_changed,
    load_trainable_model,
    trains_new_adapter,
    weights_digest,
)
from finetune_trainer.model.export import write_model
from finetune_trainer.process import heartbeats
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.report.pages import FinishedRun, write_pages
from finetune_trainer.report.summary import ResultOrigin, unchanged_loss
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim
from finetune_trainer.train.build_trainer import BuiltTrainer
from finetune_trainer.train.prepare import DATA, Attempt, Inputs
from finetune_trainer.train.training_data import data_digests

_log = structlog.get_logger()


def find_published(attempt: Attempt) -> TrainReport | None:
    """The report of a run whose result an earlier attempt has committed already. Raises DiagnosedError."""
    result = attempt.gang.from_leader(lambda: results.find_result(attempt.run, attempt.storage))
    if result is None:
        return None
    _log.info("the result is there already", uri=result.uri)
    kept = attempt.gang.from_leader(lambda: checkpoints.list_committed(attempt.storage, attempt.output))
    return _report(result, checkpoints.to_report(kept, (), attempt.run.checkpoints.best, None))


def publish(attempt: Attempt, inputs: Inputs, claim: Claim, built: BuiltTrainer) -> TrainReport:
    """Commit the result of a training that is over. Raises DiagnosedError, or FencedError."""
    log, writer = built.trainer.state.log_history, built.writer
    heartbeats.beat(Phase.SAVING, built.trainer.state.global_step)
    with log_progress("storing the result"):
        result, corrupt = attempt.gang.from_leader(lambda: _make_result(attempt, inputs, claim, built))
    writer.corrupt += corrupt
    if (events := built.events) is not None:
        events.add_corrupt(corrupt)
        events.add("New fine-tuned model created", type="result", uri=result.uri, step=result.step)
        if (warning := unchanged_loss(log)) is not None:
            events.warn(warning)
        events.add("The job has successfully completed", type="completed", **writer.totals())
        events.store(log)
    if built.sender is not None:
        built.sender.close()
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
        tuned = tuned.merge_and_unload()
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
