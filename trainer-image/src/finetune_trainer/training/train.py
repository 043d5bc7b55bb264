"""Training, from the run configuration to the committed result: TRL's SFTTrainer and what it needs."""

from __future__ import annotations

from pathlib import Path

import structlog
from transformers import PrinterCallback
from trl.trainer.sft_trainer import SFTTrainer

from finetune_api.conditions import Reason
from finetune_api.finetunejob import CorruptCheckpoint, Result
from finetune_api.outcome import TrainReport
from finetune_api.progress import CheckpointLedger
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.artifacts import results
from finetune_trainer.artifacts.events import EventLog
from finetune_trainer.artifacts.model_files import write_model
from finetune_trainer.checkpointing import checkpoints, training_state
from finetune_trainer.checkpointing.background_saves import BackgroundSaves
from finetune_trainer.checkpointing.checkpoints import Resumed
from finetune_trainer.checkpointing.resumable import Resumable
from finetune_trainer.checkpointing.training_state import Camera
from finetune_trainer.data.training_data import load_sequences, write_sequences
from finetune_trainer.data.vision import VisionCollator
from finetune_trainer.gang.batches import split_batch
from finetune_trainer.gang.gang import Gang
from finetune_trainer.models.models import LocalModel, fetch_model, is_vision_model, load_processor
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.process.narration import narrated
from finetune_trainer.s3 import commits
from finetune_trainer.s3.storage import Storage
from finetune_trainer.training.arguments import sft_arguments, uses_bfloat16
from finetune_trainer.training.callbacks import (
    BeatForWatchdog,
    PrepareSaves,
    RefuseInfiniteLoss,
    StopTogether,
    TellProgress,
)
from finetune_trainer.training.committing import Committer
from finetune_trainer.training.progress import ProgressSender
from finetune_trainer.training.sharding import shard
from finetune_trainer.training.trainable import trainable_model

_log = structlog.get_logger()


class ResumableSFTTrainer(Resumable, SFTTrainer):
    """TRL's, with saves in the background."""


def train(run: TrainRun, directory: Path, gang: Gang) -> TrainReport:
    """Train, or go on training, and commit the result. `directory` is this node's, shared by its processes.

    Raises DiagnosedError; DisruptedError after a SIGTERM, with the last step committed; FencedError, when another
    attempt holds the run.
    """
    storage = Storage(run.storage, proved=True)
    output = parse_s3(run.output_uri)
    done = gang.from_leader(lambda: results.find_result(run, storage))
    if done is not None:
        _log.info("the result is there already", uri=done.uri)
        kept = gang.from_leader(lambda: checkpoints.list_committed(storage, output))
        return _report(done, checkpoints.to_ledger(kept, (), run.checkpoints.best, None))
    batch = split_batch(run.hyperparameters.batch_size, gang.place.world_size, run.hyperparameters.max_length)
    _refuse_unmeasured_best(run)

    with narrated("fetching the model"):
        gang.on_each_node(lambda: fetch_model(run.model, storage, directory / "model"))
    local = _local_model(run, directory / "model")
    tokenizer = load_processor(local)
    sees = is_vision_model(local.base)
    with narrated("fetching the data"):
        gang.on_each_node(lambda: write_sequences(run, storage, tokenizer, directory / "data"))
    sequences = load_sequences(directory / "data")
    claim = gang.from_leader(lambda: commits.claim(storage, output, run.attempt))
    with narrated("looking for a checkpoint"):
        start_over = run.checkpoints.start_over_if_corrupt
        resumed = checkpoints.resume(gang, storage, claim, directory / "resume", start_over_if_corrupt=start_over)

    processes = gang.place.world_size
    sharded = run.parallelism.strategy == "FSDP" and not gang.alone
    arguments = sft_arguments(
        run, batch, directory / "trainer", processes=processes, evaluate=sequences.validation is not None, images=sees
    )
    if sees and sharded:
        raise DiagnosedError(
            Reason.INVALID_SPEC, "parallelism.strategy FSDP does not know vision-language models yet. Use DDP."
        )
    model = trainable_model(run, local)
    if sharded:
        model = shard(model, gang.place, bfloat16=uses_bfloat16())
    events = EventLog(storage, output, run.attempt) if gang.leads else None
    sender = ProgressSender(run.progress) if gang.leads and run.progress is not None else None
    committer = Committer(run, storage, gang.beside(), claim, resumed, events)
    saves = BackgroundSaves(Camera(gang), committer.store)
    stop = StopTogether(gang, saves)
    progress = TellProgress(sender, lambda: committer.ledger)
    trainer = ResumableSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=sequences.training,
        eval_dataset=sequences.validation,
        processing_class=tokenizer,
        data_collator=VisionCollator(tokenizer, run.hyperparameters.max_length) if sees else None,
        callbacks=[
            stop,
            PrepareSaves(saves),
            RefuseInfiniteLoss(),
            *([progress] if gang.leads else []),
            BeatForWatchdog(),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.saves = saves
    if events is not None:
        _tell_beginning(events, run, resumed)
    try:
        trainer.train(resume_from_checkpoint=None if resumed.checkpoint is None else str(resumed.checkpoint.path))
    except Exception:
        saves.abandon()
        raise
    saves.finish()
    progress.tell(trainer.state)
    if stop.stopped:
        if sender is not None:
            sender.close()
        raise DisruptedError(f"told to stop at step {trainer.state.global_step}")

    heartbeats.beat(Phase.SAVING, trainer.state.global_step)

    def make_result() -> tuple[Result, tuple[CorruptCheckpoint, ...]]:
        chosen = results.fetch_chosen(
            run, storage, committer.kept, directory / "chosen", only=training_state.is_of_model
        )
        tuned = trainable_model(run, local) if sharded else trainer.model
        training_state.restore_model(chosen.checkpoint.path, tuned)
        write_model(tuned, tokenizer, local.base, directory / "result")
        made = results.make_result(run, storage, claim, chosen.checkpoint.committed, directory / "result")
        return made, chosen.corrupt

    with narrated("storing the result"):
        result, corrupt = gang.from_leader(make_result)
    committer.corrupt += corrupt
    if events is not None:
        _tell_corrupt(events, corrupt)
        events.add("New fine-tuned model created", type="result", uri=result.uri, step=result.step)
        events.add("The job has successfully completed", type="completed", **committer.totals())
        events.store(trainer.state.log_history)
    if sender is not None:
        sender.close()
    return _report(result, committer.ledger)


def _tell_beginning(events: EventLog, run: TrainRun, resumed: Resumed) -> None:
    _tell_corrupt(events, resumed.corrupt)
    if resumed.checkpoint is None:
        events.add("Fine-tuning job started", type="started", model=run.model.uri)
    else:
        step = resumed.checkpoint.committed.manifest.step
        events.add(f"Resumed from the checkpoint of step {step}", type="resumed", step=step)


def _tell_corrupt(events: EventLog, corrupt: tuple[CorruptCheckpoint, ...]) -> None:
    for item in corrupt:
        events.add(f"Checkpoint of step {item.step} passed over: {item.message}", type="corrupt", step=item.step)


def _local_model(run: TrainRun, directory: Path) -> LocalModel:
    """Where `fetch_model` has put the model, for the processes of the node that did not fetch it."""
    return LocalModel(directory / "base", None if run.model.adapter_uri is None else directory / "adapter")


def _refuse_unmeasured_best(run: TrainRun) -> None:
    best = run.checkpoints.best
    if best is not None and best.metric == "evalLoss" and run.dataset.validation is None:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "checkpoints.best.metric is evalLoss, but there is no dataset.validation to measure it on. "
            "Add one (a splitPercent will do), or use trainLoss.",
        )


def _report(result: Result, ledger: CheckpointLedger) -> TrainReport:
    return TrainReport(
        result=result,
        checkpoints=ledger.checkpoints,
        corrupt_checkpoints=ledger.corrupt,
        checkpoint_seconds=ledger.checkpoint_seconds,
    )
