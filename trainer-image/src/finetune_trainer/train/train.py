"""Training, from the run configuration to the committed result: what all methods share."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog
import torch
from peft.helpers import disable_input_dtype_casting
from transformers import PrinterCallback

from finetune_api.conditions import Reason
from finetune_api.finetunejob import CorruptCheckpoint, EarlyStopping, MethodType, Result
from finetune_api.outcome import TrainReport
from finetune_api.progress import CheckpointLedger
from finetune_api.run import TrainRun
from finetune_api.sources import parse_location
from finetune_trainer.checkpoint import checkpoints, training_state
from finetune_trainer.checkpoint.background_saves import BackgroundSaves
from finetune_trainer.checkpoint.checkpoints import Resumed
from finetune_trainer.checkpoint.committing import Committer
from finetune_trainer.checkpoint.resumable import RunIsOverError
from finetune_trainer.checkpoint.training_state import Camera
from finetune_trainer.data.encode.chat_rendering import reads_images
from finetune_trainer.data.encode.vision import NO_SHARDED_VISION, VisionCollator
from finetune_trainer.data.training_data import data_digests, load_sequences, write_sequences
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.sharding import ReshardAfterEvaluation, shard
from finetune_trainer.methods import dpo, sft
from finetune_trainer.model.export import write_model
from finetune_trainer.model.fused_kernels import fuse_kernels
from finetune_trainer.model.gpu_parts import refuse_missing_parts
from finetune_trainer.model.loading import LocalModel, fetch_model, load_processor
from finetune_trainer.model.packed_attention import attention_over_packed_rows
from finetune_trainer.model.passes import choose_passes
from finetune_trainer.model.trainable import (
    refuse_untrained,
    trainable_model,
    trains_new_adapter,
    uses_bfloat16,
    weights_digest,
)
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.process.narration import narrated
from finetune_trainer.report.events import EventLog
from finetune_trainer.report.pages import Story, write_pages
from finetune_trainer.report.progress import ProgressReceiver, ProgressSender
from finetune_trainer.report.samples import make_samples
from finetune_trainer.report.summary import Making, unchanged_loss
from finetune_trainer.report.training_metrics import ExposeMetrics
from finetune_trainer.storage import commits
from finetune_trainer.storage.local_storage import open_storage
from finetune_trainer.train import results
from finetune_trainer.train.arguments import common_arguments
from finetune_trainer.train.callbacks import (
    BeatForWatchdog,
    KeepEvaluations,
    NoteMetrics,
    PrepareSaves,
    RefuseInfiniteLoss,
    StopTogether,
    TellProgress,
)
from finetune_trainer.train.early_stopping import StopEarly, was_over

_log = structlog.get_logger()


METHODS: dict[MethodType, Callable[..., Any]] = {"SFT": sft.make_trainer, "DPO": dpo.make_trainer}


def train(run: TrainRun, directory: Path, gang: Gang, screen: ProgressReceiver | None = None) -> TrainReport:
    """Train, or go on training, and commit the result. `directory` is this node's, shared by its processes.

    Progress goes to the `screen`, or else to where the run says.

    Raises DiagnosedError; DisruptedError after a SIGTERM, with the last step committed; FencedError, when another
    attempt holds the run.
    """
    refuse_missing_parts()
    storage = open_storage(run.storage, proved=True)
    output = parse_location(run.output_uri)
    done = gang.from_leader(lambda: results.find_result(run, storage))
    if done is not None:
        _log.info("the result is there already", uri=done.uri)
        kept = gang.from_leader(lambda: checkpoints.list_committed(storage, output))
        return _report(done, checkpoints.to_ledger(kept, (), run.checkpoints.best, None))
    _refuse_unmeasured_best(run)

    with narrated("fetching the model"):
        gang.on_each_node(lambda: fetch_model(run.model, storage, directory / "model"))
    local = _local_model(run, directory / "model")
    passes = choose_passes(run, local.base, gang)
    tokenizer = load_processor(local)
    sees = reads_images(tokenizer)
    with narrated("fetching the data"):
        gang.on_each_node(lambda: write_sequences(run, storage, tokenizer, directory / "data"))
    sequences = load_sequences(directory / "data")
    claim = gang.from_leader(lambda: commits.claim(storage, output, run.attempt))
    with narrated("looking for a checkpoint"):
        start_over = run.checkpoints.start_over_if_corrupt
        resumed = checkpoints.resume(gang, storage, claim, directory / "resume", start_over_if_corrupt=start_over)

    processes = gang.place.world_size
    sharded = run.parallelism.strategy == "FSDP" and not gang.alone
    if sees and sharded:
        raise DiagnosedError(Reason.INVALID_SPEC, NO_SHARDED_VISION)
    packs = run.hyperparameters.packing and not sees  # TRL packs token ids, not images
    early_stopping = run.hyperparameters.early_stopping
    arguments = common_arguments(
        run,
        passes,
        directory / "trainer",
        processes=processes,
        evaluate=sequences.validation is not None,
        images=sees,
        last_step=_last_step(resumed, early_stopping),
    )
    arguments["eval_on_start"] = sequences.validation is not None and _is_unevaluated(resumed, run)
    if torch.cuda.is_available():
        torch.cuda.set_device(gang.place.local_rank)  # a model that is quantized goes there while it is loaded
    model = trainable_model(run, local)
    if torch.cuda.is_available() and not sees:
        fuse_kernels(model)
    if sharded:
        model = shard(model, gang.place, bfloat16=uses_bfloat16())
    untrained = None if sharded else weights_digest(model)
    events = EventLog(storage, output, run.attempt) if gang.leads else None
    sender = screen
    if gang.leads and run.progress is not None:
        sender = ProgressSender(run.progress)
    metrics = ExposeMetrics(run.metrics_port if gang.leads_node else None)
    committer = Committer(run, storage, gang.beside(), claim, resumed, events)
    saves = BackgroundSaves(Camera(gang), committer.store, metrics.add_checkpoint_stall)
    stop = StopTogether(gang, saves)
    progress = TellProgress(sender, lambda: committer.ledger)
    trainer = METHODS[run.method.type](
        run,
        local,
        arguments,
        model=model,
        train_dataset=sequences.training,
        eval_dataset=sequences.validation,
        processing_class=tokenizer,
        data_collator=VisionCollator(tokenizer, run.hyperparameters.max_length) if sees else None,
        callbacks=[
            stop,
            PrepareSaves(saves),
            RefuseInfiniteLoss(),
            KeepEvaluations(committer.note_evaluation),
            *([ReshardAfterEvaluation()] if sharded else []),
            *([StopEarly(early_stopping)] if early_stopping is not None else []),
            *([progress] if gang.leads else []),
            *([NoteMetrics(events)] if events is not None else []),
            metrics,
            BeatForWatchdog(),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.saves = saves
    if events is not None:
        _tell_beginning(events, run, resumed)
    checkpoint = None if resumed.checkpoint is None else str(resumed.checkpoint.path)
    try:
        with ExitStack() as meanwhile:
            if packs:
                meanwhile.enter_context(attention_over_packed_rows(trainer.model))
            # Under autocast, copies of LoRA's inputs in the float32 of its weights are made for nothing.
            meanwhile.enter_context(disable_input_dtype_casting(trainer.model, active=uses_bfloat16()))
            trainer.train(resume_from_checkpoint=checkpoint)
    except RunIsOverError:
        _log.info("the run had come to its end: its result is made")
    except DisruptedError:
        saves.finish()
        if sender is not None:
            sender.close()
        raise
    except Exception:
        saves.abandon()
        raise
    saves.finish()
    committer.settle()
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
        before = weights_digest(tuned) if untrained is None else untrained
        training_state.restore_model(chosen.checkpoint.path, tuned)
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
        unchanged = refuse_untrained(
            before,
            weights_digest(tuned),
            new_adapter=trains_new_adapter(run, local),
            highest_rate=max(rates, default=0.0),
        )
        if unchanged is not None:
            _log.warning(unchanged)
        if trains_new_adapter(run, local) and not results.is_adapter(run):
            tuned = tuned.merge_and_unload()
        write_model(tuned, tokenizer, local.base, directory / "result")
        story = Story(
            chosen=chosen.checkpoint.committed.manifest,
            kept=committer.kept,
            corrupt=(*committer.corrupt, *chosen.corrupt),
            log=trainer.state.log_history,
            totals=committer.totals(),
            data_digests=data_digests(directory / "data"),
            samples=make_samples(tuned, tokenizer, local, sequences),
            making=Making(
                result_uri=commits.result_folder(claim.run, claim.number).uri,
                is_adapter=results.is_adapter(run),
                accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            ),
        )
        write_pages(run, storage, story, directory / "result")
        made = results.make_result(run, storage, claim, chosen.checkpoint.committed, directory / "result")
        return made, chosen.corrupt

    with narrated("storing the result"):
        result, corrupt = gang.from_leader(make_result)
    committer.corrupt += corrupt
    if events is not None:
        _tell_corrupt(events, corrupt)
        events.add("New fine-tuned model created", type="result", uri=result.uri, step=result.step)
        if (nothing := unchanged_loss(trainer.state.log_history)) is not None:
            events.warn(nothing)
        events.add("The job has successfully completed", type="completed", **committer.totals())
        events.store(trainer.state.log_history)
    if sender is not None:
        sender.close()
    return _report(result, committer.ledger)


def _last_step(resumed: Resumed, settings: EarlyStopping | None) -> int | None:
    """The step of the checkpoint to go on from, where the run had stopped early; only its result is missing."""
    checkpoint = resumed.checkpoint
    if settings is None or checkpoint is None or not was_over(checkpoint.path, settings):
        return None
    return checkpoint.committed.manifest.step


def _is_unevaluated(resumed: Resumed, run: TrainRun) -> bool:
    """Whether the checkpoint to go on from is of a step that is evaluated, and was not: the process ended before."""
    if resumed.checkpoint is None:
        return False
    step = resumed.checkpoint.committed.manifest.step
    state = (resumed.checkpoint.path / checkpoints.TRAINER_STATE).read_bytes()
    every, last = run.hyperparameters.checkpoint_every_steps, json.loads(state)["max_steps"]
    return step not in checkpoints.evaluations(state) and (step % every == 0 or step >= last)


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
    if best is not None and best.metric == "EvalLoss" and run.dataset.validation is None:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "checkpoints.best.metric is EvalLoss, but there is no dataset.validation to measure it on. "
            "Add one (a splitPercent will do), or use TrainLoss.",
        )


def _report(result: Result, ledger: CheckpointLedger) -> TrainReport:
    return TrainReport(
        result=result,
        checkpoints=ledger.checkpoints,
        corrupt_checkpoints=ledger.corrupt,
        checkpoint_seconds=ledger.checkpoint_seconds,
    )
