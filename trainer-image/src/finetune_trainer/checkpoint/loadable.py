"""A checkpoint as a model that can be loaded: the model that was trained, with the weights that the checkpoint has.

A checkpoint has only what is trained, as shards. The model is made as training makes it, filled, and saved as a result
is: an adapter of its base, or a whole model. Nothing but safetensors and JSON is read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter
from finetune_api.pod_contracts.run import CheckpointSource, ModelSource
from finetune_api.sources import parse_location
from finetune_trainer.checkpoint import checkpoints, training_state
from finetune_trainer.generate.generation import stored_dtype
from finetune_trainer.model.adapters import (
    add_lora,
    load_merged_model,
    load_whole_model,
    merge_adapter,
    trains_new_adapter,
)
from finetune_trainer.model.export import write_model
from finetune_trainer.model.loading import LocalModel, fetch_model, find_model, load_model, load_processor
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Committed, CorruptError
from finetune_trainer.storage.storage import Storage


def find_loadable(source: ModelSource, storage: Storage) -> None:
    """Raises DiagnosedError (ModelNotFound, ModelInvalid) for what is not there; fetches nothing."""
    find_model(source, storage)
    if source.checkpoint is not None:
        _find_checkpoint(source.checkpoint, storage)


def fetch_loadable(source: ModelSource, storage: Storage, directory: Path) -> LocalModel:
    """Fetch a model to below `directory`; of a checkpoint, make the model that its run would have had as its result.

    Raises DiagnosedError: ModelNotFound, ModelInvalid, CheckpointCorrupt, or one of the storage's.
    """
    start = fetch_model(source, storage, directory)
    if source.checkpoint is None:
        return start
    committed = _find_checkpoint(source.checkpoint, storage)
    try:
        local = checkpoints.fetch(storage, committed, directory / "checkpoint", only=training_state.is_of_model)
    except CorruptError as error:
        raise DiagnosedError(Reason.MODEL_INVALID, str(error)) from error
    adapter = Adapter.from_wire(source.checkpoint.adapter)
    model = _as_trained(start, adapter)
    training_state.restore_model(local.path, model)
    if isinstance(model, PeftModel) and start.adapter is not None and adapter.inherited == "Merge":
        model = merge_adapter(model)
    target = directory / "tuned"
    write_model(model, load_processor(start), start.base, target)
    shutil.rmtree(local.path)
    if isinstance(model, PeftModel):
        return LocalModel(start.base, target)
    shutil.rmtree(start.base)
    return LocalModel(target)


def fetched_uri(source: ModelSource) -> str:
    """The URI that tells people which model this is."""
    return source.checkpoint.uri if source.checkpoint is not None else source.adapter_uri or source.uri


def _find_checkpoint(checkpoint: CheckpointSource, storage: Storage) -> Committed:
    folder = parse_location(checkpoint.uri)
    try:
        committed = commits.find_committed(storage, folder)
    except CorruptError as error:
        raise DiagnosedError(Reason.MODEL_INVALID, str(error)) from error
    if committed is None:
        raise DiagnosedError(
            Reason.MODEL_NOT_FOUND,
            f"The checkpoint of step {checkpoint.step} is not at {folder.uri} any more: its run has deleted it for a "
            "newer one (checkpoints.keep), or its job was deleted. Choose another one.",
        )
    if checkpoint.digest not in (None, committed.digest):
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"{folder.uri} has changed: its manifest is {committed.digest}, expected {checkpoint.digest}.",
        )
    return committed


def _as_trained(start: LocalModel, adapter: Adapter) -> Any:
    """The model as its training began, in the precision of its files: what is trained is named as in the checkpoint.

    What is merged first is merged in float32, as for a result. Raises DiagnosedError (InvalidSpec).
    """
    dtype = stored_dtype(start) if start.adapter is None else torch.float32
    if adapter.type == "Full":
        return load_whole_model(start, dtype, adapter.freeze)
    if not trains_new_adapter(adapter, start):
        return load_model(start, dtype, trainable_adapter=True)
    return add_lora(load_merged_model(start, dtype), adapter)
