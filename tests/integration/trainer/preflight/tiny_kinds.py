"""Tiny models of many kinds in folders of this machine, and what preflight says of them, without fetching weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Dataset, Method, TrainingData
from finetune_api.pod_contracts.run import ModelSource, PreflightRun, StorageConfig
from finetune_api.sources import ON_A_LAPTOP
from finetune_trainer.model.loading import InspectedModel, inspect_model
from finetune_trainer.preflight.model_checks import CheckedModel, check_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.open_storage import open_storage
from tests.integration.trainer.runs import JOB
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer

STORAGE = StorageConfig(region="us-east-1", local_folders=True)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "pad_token_id": None,
}
NO_DATA = Dataset(training=TrainingData.model_validate({"uri": "file:///nowhere.jsonl"}, context=ON_A_LAPTOP))
BLOOM: dict[str, Any] = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "bos_token_id": None, "pad_token_id": None}


def save(folder: Path, kind: str = "llama", tokenizer: Any = None, **settings: Any) -> Path:
    tokenizer = tokenizer or make_tokenizer()
    sizes = BLOOM if kind == "bloom" else SIZES
    wanted = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **sizes, **settings}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**wanted)).save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    return folder


def preflight_run(folder: Path, inherited: Path | None = None, **changes: Any) -> PreflightRun:
    settings: dict[str, Any] = {
        "job": JOB,
        "storage": STORAGE,
        "output_uri": "file:///nowhere",
        "model": ModelSource(uri=folder.as_uri(), adapter_uri=None if inherited is None else inherited.as_uri()),
        "method": Method(),
        "dataset": NO_DATA,
        "seed": 17,
    }
    return PreflightRun(**settings | changes)


def check(folder: Path, scratch: Path, inherited: Path | None = None, **changes: Any) -> InspectedModel:
    run = preflight_run(folder, inherited, **changes)
    model = inspect_model(run.model, open_storage(STORAGE), scratch)
    check_model(run, model)
    return model


def checked_model(folder: Path, scratch: Path, **changes: Any) -> CheckedModel:
    run = preflight_run(folder, **changes)
    return check_model(run, inspect_model(run.model, open_storage(STORAGE), scratch))


def refusal(folder: Path, scratch: Path, inherited: Path | None = None, **changes: Any) -> tuple[Reason, str]:
    with pytest.raises(DiagnosedError) as error:
        check(folder, scratch, inherited, **changes)
    assert not error.value.failure.retryable
    return error.value.failure.reason, error.value.failure.message
