"""Step 3: the model in memory, the Trainer of the run's method, and the callbacks that observe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from finetune_api.finetunejob import Schedule
from finetune_trainer.checkpoint.saving import BackgroundSaves, CheckpointWriter
from finetune_trainer.checkpoint.training_state import SnapshotTaker
from finetune_trainer.data.encode.vision import VisionCollator
from finetune_trainer.distributed.sharding import ReshardAfterEvaluation, fill, shard
from finetune_trainer.methods.method import TrainerParts, packs_rows
from finetune_trainer.model.adapters import (
    keep_master_weights,
    load_trainable_model,
    uses_bfloat16,
    weights_digest,
)
from finetune_trainer.model.kernels.fused_kernels import fuse_kernels
from finetune_trainer.model.loading import META
from finetune_trainer.model.weight_values import refuse_infinite_weights
from finetune_trainer.process.cpu import available_cpus
from finetune_trainer.report.events import EventLog
from finetune_trainer.report.progress import ProgressReceiver, ProgressSender
from finetune_trainer.report.training_metrics import ExposeMetrics
from finetune_trainer.train.callbacks import (
    PreallocateSnapshots,
    RecordEvaluations,
    RecordMetrics,
    ReportProgress,
    RequireFiniteLoss,
    SendHeartbeats,
    StopOnSigterm,
)
from finetune_trainer.train.early_stopping import StopEarly
from finetune_trainer.train.image_workers import free_for_batches, image_workers, largest_batch
from finetune_trainer.train.prepare import Attempt, Inputs, Start

SCHEDULERS: dict[Schedule, str] = {
    "Cosine": "cosine",
    "Linear": "linear",
    "Constant": "constant_with_warmup",
}


@dataclass(frozen=True)
class BuiltTrainer:
    """A Trainer that is ready to fit, and what follows its training."""

    trainer: Any
    saves: BackgroundSaves
    writer: CheckpointWriter
    stop: StopOnSigterm
    progress: ReportProgress
    sender: ProgressReceiver | None
    """Where progress goes; None without a receiver, and in all processes except rank 0."""
    events: EventLog | None
    """Rank 0's."""
    packs: bool
    """Whether several examples share a row."""
    initial_weights: list[tuple[float, float]] | None
    """`weights_digest` before training; None of a sharded model."""


def build_trainer(attempt: Attempt, inputs: Inputs, start: Start, screen: ProgressReceiver | None) -> BuiltTrainer:
    """Load the model and build its Trainer. Raises DiagnosedError (InvalidSpec) as `load_trainable_model` does."""
    run, gang = attempt.run, attempt.gang
    model = _load(attempt, inputs)
    initial_weights = None if attempt.is_sharded else weights_digest(model)
    events = _event_log(attempt, inputs) if gang.leads else None
    sender = ProgressSender(run.progress) if gang.leads and run.progress is not None else screen
    metrics = ExposeMetrics(run.metrics_port if gang.leads_node else None)
    writer = CheckpointWriter(
        run.checkpoints, attempt.storage, gang.for_another_thread(), start.claim, start.resumed, events
    )
    saves = BackgroundSaves(SnapshotTaker(gang), writer.store, metrics.add_checkpoint_stall)
    stop = StopOnSigterm(gang, saves)
    progress = ReportProgress(sender, lambda: writer.checkpoint_report, inputs.method.metrics)
    callbacks: list[TrainerCallback] = [stop, PreallocateSnapshots(saves)]
    callbacks.append(RequireFiniteLoss(lambda: refuse_infinite_weights(inputs.model, run.model)))
    callbacks.append(RecordEvaluations(writer.note_evaluation))
    if attempt.is_sharded:
        callbacks.append(ReshardAfterEvaluation())
    if run.hyperparameters.early_stopping is not None:
        callbacks.append(StopEarly(run.hyperparameters.early_stopping))
    if gang.leads:
        callbacks.append(progress)
    if events is not None:
        callbacks.append(RecordMetrics(events, inputs.method.measures))
    parts = TrainerParts(
        hyperparameters=run.hyperparameters,
        adapter=run.adapter,
        source=inputs.model,
        teacher=inputs.teacher,
        model=model,
        processor=inputs.processor,
        training=inputs.sequences.training,
        validation=inputs.sequences.validation,
        packs=packs_rows(run.method, inputs.processor, packing=run.hyperparameters.packing),
        arguments=_arguments(attempt, inputs, start),
        collator=VisionCollator(inputs.processor, run.hyperparameters.max_length) if inputs.has_images else None,
        callbacks=[*callbacks, metrics, SendHeartbeats()],
        note=_note_nothing if events is None else events.note,
        asked_to_stop=lambda: stop.asked,
    )
    trainer = inputs.method.build_trainer(parts)
    keep_master_weights(trainer.model)
    trainer.remove_callback(PrinterCallback)
    trainer.saves = saves
    if events is not None:
        _record_start(events, run.model.uri, start)
    return BuiltTrainer(trainer, saves, writer, stop, progress, sender, events, parts.packs, initial_weights)


def _note_nothing(message: str, **data: object) -> None:
    """Of processes that record no events."""


def _event_log(attempt: Attempt, inputs: Inputs) -> EventLog:
    return EventLog(attempt.storage, attempt.output, attempt.run.attempt, inputs.method.metrics)


def _load(attempt: Attempt, inputs: Inputs) -> Any:
    """The model as it is trained: with its adapter, its fused kernels, and sharded where the run asks for it."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(attempt.gang.ranks.local_rank)
    if not attempt.is_sharded:
        model = load_trainable_model(attempt.run, inputs.model, torch.cuda.current_device() if on_gpu else None)
        _fuse_kernels(model, inputs)
        return model
    model = load_trainable_model(attempt.run, inputs.model, META)
    _fuse_kernels(model, inputs)
    shard(model, attempt.gang.ranks, bfloat16=uses_bfloat16())
    whole: list[Any] = []
    attempt.gang.from_leader(lambda: whole.append(load_trainable_model(attempt.run, inputs.model)))
    fill(model, whole.pop() if whole else None)
    return model


def _fuse_kernels(model: Any, inputs: Inputs) -> None:
    if torch.cuda.is_available() and not inputs.has_images:
        fuse_kernels(model)


def _arguments(attempt: Attempt, inputs: Inputs, start: Start) -> dict[str, Any]:
    """The TrainingArguments that all methods share, as keywords. What the spec does not set keeps TRL's default."""
    on_gpu = torch.cuda.is_available()
    parameters, split = attempt.run.hyperparameters, inputs.micro_batches.split
    evaluates = inputs.sequences.validation is not None
    return {
        "output_dir": str(attempt.directory / "trainer"),
        "per_device_train_batch_size": split.micro_batch_size,
        "gradient_accumulation_steps": split.accumulation_steps,
        "per_device_eval_batch_size": split.micro_batch_size,
        "num_train_epochs": parameters.epochs,
        "max_steps": start.last_step or -1,
        "learning_rate": parameters.learning_rate,
        "lr_scheduler_type": SCHEDULERS[parameters.schedule],
        "warmup_steps": min(parameters.warmup_percent / 100, 0.9999),  # below 1 it is a share of all steps
        "weight_decay": parameters.weight_decay,
        "seed": parameters.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": parameters.checkpoint_every_steps,
        "eval_on_start": evaluates and start.evaluates_first,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": parameters.checkpoint_every_steps,
        # Of the Trainer's own saving, which Resumable replaces: else it refuses sharded models.
        "save_only_model": True,
        "include_num_input_tokens_seen": "non_padding",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not on_gpu,
        "bf16": uses_bfloat16(),
        "gradient_checkpointing": inputs.micro_batches.gradient_checkpointing,
        "dataloader_pin_memory": on_gpu,
        "dataloader_num_workers": (workers := _image_workers(attempt, inputs)),
        "dataloader_prefetch_factor": 1 if workers else None,
        "ddp_backend": None if on_gpu or attempt.gang.alone else "gloo",
        # A batch without an image leaves the vision tower out; LoRA doesn't train that.
        "ddp_find_unused_parameters": inputs.has_images and attempt.run.adapter.type == "Full",
        "remove_unused_columns": not inputs.has_images,  # the collator reads them
    }


def _image_workers(attempt: Attempt, inputs: Inputs) -> int:
    """None on a CPU: they would take it from the training."""
    if not inputs.has_images or not torch.cuda.is_available():
        return 0
    processes = attempt.run.parallelism.processes_per_node
    batch = largest_batch(inputs.sequences.training, inputs.micro_batches.split.micro_batch_size)
    return image_workers(available_cpus() // processes, batch, free_for_batches(processes))


def _record_start(events: EventLog, model: str, start: Start) -> None:
    events.add_corrupt(start.resumed.corrupt)
    if start.resumed.checkpoint is None:
        events.add("Fine-tuning job started", type="started", model=model)
    else:
        step = start.resumed.checkpoint.committed.manifest.step
        events.add(f"Resumed from the checkpoint of step {step}", type="resumed", step=step)
