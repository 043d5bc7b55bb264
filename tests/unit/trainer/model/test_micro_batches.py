"""How a step is computed follows from the model, the batch and the accelerator, and nothing is left to luck."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from finetune_api.finetunejob import (
    Adapter,
    Checkpoints,
    Dataset,
    LoRA,
    Method,
    Parallelism,
    ResolvedHyperparameters,
    TrainingData,
)
from finetune_api.pod_contracts.run import JobIdentity, ModelSource, StorageConfig, TrainRun
from finetune_trainer.distributed.batches import BatchSplit
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.ranks import ranks_alone_on_node
from finetune_trainer.model.memory import MethodMemory
from finetune_trainer.model.micro_batches import MicroBatches, choose_micro_batches

GIB = 2**30
LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def chosen(directory: Path, kind: str = "llama", *, packing: bool = True, **settings: Any) -> MicroBatches:
    """For eight rows of 4096 tokens a step, with LoRA."""
    AutoConfig.for_model(kind, **LLAMA_8B | settings).save_pretrained(directory)
    run = TrainRun(
        job=JobIdentity(namespace="team-a", name="large", uid="0", run_id="1"),
        attempt=1,
        storage=StorageConfig(endpoint=None, region="us-east-1"),
        output_uri="s3://bucket/output",
        model=ModelSource(uri="s3://bucket/model"),
        method=Method(),
        adapter=Adapter(lora=LoRA(rank=16, alpha=32, dropout=0.0)),
        dataset=Dataset(training=TrainingData(uri="s3://bucket/data.jsonl")),
        hyperparameters=ResolvedHyperparameters(
            epochs=1,
            batch_size=8,
            learning_rate=1e-4,
            schedule="Cosine",
            warmup_percent=0,
            weight_decay=0,
            max_length=4096,
            packing=packing,
            seed=17,
            total_steps=10,
            checkpoint_every_steps=10,
        ),
        parallelism=Parallelism(),
        checkpoints=Checkpoints(),
    )
    return choose_micro_batches(run, directory, Gang(ranks_alone_on_node(run.parallelism, {})), MethodMemory())


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """An accelerator with so many GiB."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    properties = SimpleNamespace(total_memory=request.param * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (139, MicroBatches(BatchSplit(4, 2), gradient_checkpointing=False)),
        (79, MicroBatches(BatchSplit(2, 4), gradient_checkpointing=False)),
        (24, MicroBatches(BatchSplit(1, 8), gradient_checkpointing=True)),
        (8, MicroBatches(BatchSplit(1, 8), gradient_checkpointing=True)),
    ],
    indirect=["memory"],
    ids=["H200", "H100", "a card of 24 GiB", "one that is too small"],
)
def test_on_a_gpu_the_memory_decides(memory: None, expected: MicroBatches, tmp_path: Path) -> None:
    micro_batches = chosen(tmp_path)
    if expected.gradient_checkpointing:  # how many rows fit then is the estimate's to say
        assert micro_batches.gradient_checkpointing
        assert micro_batches.split.micro_batch_size * micro_batches.split.accumulation_steps == 8
    else:
        assert micro_batches == expected


@pytest.mark.parametrize("memory", [139], indirect=True)
def test_packed_rows_whose_attention_needs_a_mask_go_one_by_one(memory: None, tmp_path: Path) -> None:
    assert chosen(tmp_path, "gemma2") == MicroBatches(BatchSplit(1, 8), gradient_checkpointing=True)
    assert chosen(tmp_path, "gemma2", packing=False).split.micro_batch_size > 1


@pytest.mark.parametrize("memory", [139], indirect=True)
def test_of_a_model_of_unknown_size_activations_are_recomputed(memory: None, tmp_path: Path) -> None:
    assert chosen(tmp_path, "t5", packing=False, num_layers=2) == MicroBatches(
        BatchSplit(4, 2), gradient_checkpointing=True
    )


def test_on_a_cpu_activations_are_kept(tmp_path: Path) -> None:
    assert chosen(tmp_path) == MicroBatches(BatchSplit(4, 2), gradient_checkpointing=False)
