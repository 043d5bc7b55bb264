"""Training, from the run configuration to the committed result: TRL's SFTTrainer and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
import torch
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Result, Schedule
from finetune_api.outcome import TrainReport
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer import checkpoints, results
from finetune_trainer.batches import BatchSplit, split_batch
from finetune_trainer.callbacks import CommitCheckpoints, RefuseInfiniteLoss, StopTogether, TellProgress
from finetune_trainer.events import EventLog
from finetune_trainer.failures import DiagnosedError, DisruptedError
from finetune_trainer.gang import Gang
from finetune_trainer.heartbeat import heartbeat
from finetune_trainer.models import LocalModel, fetch_model, load_model, load_tokenizer
from finetune_trainer.progress import ProgressSender
from finetune_trainer.storage import Storage
from finetune_trainer.training_data import load_sequences, write_sequences

SCHEDULERS: dict[Schedule, str] = {
    "Cosine": "cosine",
    "Linear": "linear",
    "Constant": "constant_with_warmup",
}

_log = structlog.get_logger()


def train(run: TrainRun, directory: Path, gang: Gang) -> TrainReport:
    """Train, or go on training, and commit the result. `directory` is this node's, shared by its processes.

    Raises DiagnosedError; DisruptedError after a SIGTERM, with the last step committed.
    """
    storage = Storage(run.storage)
    output = parse_s3(run.output_uri)
    done = gang.from_leader(lambda: results.find_result(run, storage))
    if done is not None:
        _log.info("the result is there already", uri=done.uri)
        return _report(run, storage, gang, done)
    batch = split_batch(run.hyperparameters.batch_size, gang.place.world_size, run.hyperparameters.max_length)
    _refuse_unmeasured_best(run)

    with heartbeat("fetching the model"):
        gang.on_each_node(lambda: fetch_model(run.model, storage, directory / "model"))
    local = _local_model(run, directory / "model")
    tokenizer = load_tokenizer(local.tokenizer)
    with heartbeat("fetching the data"):
        gang.on_each_node(lambda: write_sequences(run, storage, tokenizer, directory / "data"))
    sequences = load_sequences(directory / "data")
    with heartbeat("looking for a checkpoint"):
        resumed = checkpoints.fetch_on_every_node(gang, storage, output, directory / "resume")

    model = _trainable_model(run, local)
    events = EventLog(storage, output, run.attempt) if gang.leads else None
    sender = ProgressSender(run.progress) if gang.leads and run.progress is not None else None
    stop = StopTogether(gang)
    commit = CommitCheckpoints(run, storage, gang, events)
    trainer = SFTTrainer(
        model=model,
        args=_arguments(
            run,
            batch,
            directory / "trainer",
            processes=gang.place.world_size,
            evaluate=sequences.validation is not None,
        ),
        train_dataset=sequences.training,
        eval_dataset=sequences.validation,
        processing_class=tokenizer,
        callbacks=[stop, RefuseInfiniteLoss(), commit, *([TellProgress(sender)] if gang.leads else [])],
    )
    trainer.remove_callback(PrinterCallback)
    if events is not None:
        if resumed is None:
            events.add("Fine-tuning job started", type="started", model=run.model.uri)
        else:
            step = resumed.committed.manifest.step
            events.add(f"Resumed from the checkpoint of step {step}", type="resumed", step=step)
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed.path))
    if stop.stopped:
        raise DisruptedError(f"told to stop at step {trainer.state.global_step}")

    last = commit.last or resumed
    if last is None:
        raise DiagnosedError(Reason.FAILED, "The training ended without a checkpoint.")
    with heartbeat("storing the result"):
        result = gang.from_leader(
            lambda: results.make_result(run, storage, results.choose(run, storage, last, directory / "best"))
        )
    if events is not None:
        events.add("New fine-tuned model created", type="result", uri=result.uri, step=result.step)
        events.add("The job has successfully completed", type="completed")
        events.store(trainer.state.log_history)
    if sender is not None:
        sender.close()
    return _report(run, storage, gang, result)


def _arguments(run: TrainRun, batch: BatchSplit, directory: Path, *, processes: int, evaluate: bool) -> SFTConfig:
    """The hyperparameters in TRL's words. What a spec says nothing of stays as TRL has it."""
    on_gpu = torch.cuda.is_available()
    parameters = run.hyperparameters
    return SFTConfig(
        output_dir=str(directory),
        per_device_train_batch_size=batch.per_pass,
        gradient_accumulation_steps=batch.passes,
        per_device_eval_batch_size=batch.per_pass,
        num_train_epochs=parameters.epochs,
        learning_rate=parameters.learning_rate,
        lr_scheduler_type=SCHEDULERS[parameters.schedule],
        warmup_steps=min(parameters.warmup_percent / 100, 0.9999),  # below 1 it is a share of all steps
        weight_decay=parameters.weight_decay,
        max_length=parameters.max_length,
        packing=parameters.packing,
        eval_packing=False,
        seed=parameters.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=parameters.checkpoint_every_steps,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=parameters.checkpoint_every_steps,
        save_total_limit=1,  # the others are in the storage
        include_num_input_tokens_seen="non_padding",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=_use_bfloat16(),
        gradient_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        ddp_backend=None if on_gpu or processes == 1 else "gloo",
        ddp_find_unused_parameters=False,
    )


def _trainable_model(run: TrainRun, local: LocalModel) -> Any:
    """The model in memory: for LoRA with a new adapter, or the one that it came with; for Full as a whole."""
    half = _use_bfloat16() and run.adapter.type == "LoRA"  # what is trained itself is kept in full precision
    model = load_model(local, torch.bfloat16 if half else torch.float32, trainable_adapter=True)
    if run.adapter.type == "Full":
        return model.merge_and_unload() if local.adapter is not None else model
    if local.adapter is not None:
        return model
    set_seed(run.hyperparameters.seed)
    try:
        return get_peft_model(model, _lora(run.adapter))
    except ValueError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"adapter.targetModules: {error}") from error


def _lora(adapter: Adapter) -> LoraConfig:
    everything = adapter.target_modules == ["all-linear"]
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear" if everything else adapter.target_modules,
        task_type="CAUSAL_LM",
    )


def _use_bfloat16() -> bool:
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


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


def _report(run: TrainRun, storage: Storage, gang: Gang, result: Result) -> TrainReport:
    kept = gang.from_leader(lambda: checkpoints.list_committed(storage, parse_s3(run.output_uri)))
    return TrainReport(result=result, checkpoints=[checkpoints.to_status(committed) for committed in kept])
