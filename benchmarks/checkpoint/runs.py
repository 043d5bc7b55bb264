"""Runs of a random Llama on the storage of this machine, all its weights trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.s3 import REGION, S3
from finetune_api.finetunejob import (
    Adapter,
    Checkpoints,
    Dataset,
    Method,
    Parallelism,
    ResolvedHyperparameters,
    TrainingData,
)
from finetune_api.pod_contracts.run import JobIdentity, ModelSource, StorageConfig, TrainRun

BUCKET = "benchmark"
MODEL = "model"
DATA = "data.jsonl"
RESULTS = Path(__file__).parents[1] / "results"
TOKENS = 64
VOCABULARY = 32_000


def llama(layers: int) -> Any:
    """A model with random weights, 134 M of them with 12 layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=layers,
            num_attention_heads=12,
            max_position_embeddings=TOKENS,
            bos_token_id=None,
            eos_token_id=0,
        )
    )


def put_llama(s3: S3, layers: int, scratch: Path) -> None:
    """Put such a model with a tokenizer, and a few examples, where `full_run` says they are."""
    from tests.integration.trainer_evaluation.tiny_models import chat, make_tokenizer

    llama(layers).save_pretrained(scratch)
    make_tokenizer().save_pretrained(scratch)
    for file in scratch.iterdir():
        s3.upload(file, BUCKET, f"{MODEL}/{file.name}")
    lines = [json.dumps(chat(f"What is {number} plus 1?", str(number + 1))) for number in range(100)]
    s3.put(BUCKET, DATA, "\n".join(lines).encode())


def full_run(s3: S3, *, steps: int, every_steps: int) -> TrainRun:
    """The first attempt at training it, a hundred steps an epoch."""
    return TrainRun(
        job=JobIdentity(namespace="benchmarks", name="llama", uid="0", run_id="1"),
        attempt=1,
        storage=StorageConfig(endpoint=s3.endpoint, region=REGION, path_style=True),
        output_uri=f"s3://{BUCKET}/ours",
        model=ModelSource(uri=f"s3://{BUCKET}/{MODEL}"),
        method=Method(),
        adapter=Adapter(type="Full"),
        dataset=Dataset(training=TrainingData(uri=f"s3://{BUCKET}/{DATA}")),
        hyperparameters=ResolvedHyperparameters(
            epochs=steps / 100,
            batch_size=1,
            learning_rate=5e-5,
            schedule="Linear",
            warmup_percent=0,
            weight_decay=0,
            max_length=TOKENS,
            packing=False,
            seed=0,
            total_steps=steps,
            checkpoint_every_steps=every_steps,
        ),
        parallelism=Parallelism(),
        checkpoints=Checkpoints(keep=1),
    )
