"""What to change when memory does not suffice: values that help, and none that don't."""

from __future__ import annotations

import pytest

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
from finetune_trainer.supervision.suggestions import more_accelerator_memory, more_memory


def run(batch_size: int, max_length: int, adapter: str = "LoRA", nodes: int = 1) -> TrainRun:
    return TrainRun(
        job=JobIdentity(namespace="team-a", name="adder", uid="7f0e", run_id="1"),
        attempt=1,
        storage=StorageConfig(region="eu-west-1"),
        output_uri="s3://models/team-a/adder/1",
        model=ModelSource(uri="s3://models/base"),
        method=Method(),
        adapter=Adapter.from_wire({"type": adapter}),
        dataset=Dataset(training=TrainingData(uri="s3://data/train.jsonl")),
        hyperparameters=ResolvedHyperparameters(
            epochs=2.0,
            batch_size=batch_size,
            learning_rate=1e-2,
            schedule="Cosine",
            warmup_percent=10.0,
            weight_decay=0.0,
            max_length=max_length,
            packing=False,
            seed=17,
            total_steps=20,
            checkpoint_every_steps=10,
        ),
        parallelism=Parallelism(nodes=nodes),
        checkpoints=Checkpoints(),
    )


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (
            run(batch_size=16, max_length=512),
            "Set hyperparameters.batchSize to 8 (now 16), or hyperparameters.maxLength to 256 (now 512)",
        ),
        (
            run(adapter="Full", batch_size=1, max_length=2048),
            "Set hyperparameters.maxLength to 1024 (now 2048), or adapter.type to LoRA (now Full)",
        ),
        (
            # 64 sequences of 2048 are eight passes of eight already, and would be so with half of either.
            run(batch_size=64, max_length=2048),
            "Set hyperparameters.batchSize to 4 (now 64), or hyperparameters.maxLength to 128 (now 2048)",
        ),
        (
            run(batch_size=4, max_length=512, nodes=4),
            "Set hyperparameters.maxLength to 256 (now 512)",
        ),
        (run(batch_size=1, max_length=100), "Take a smaller model"),
        (None, "Lower hyperparameters.batchSize or hyperparameters.maxLength, set adapter.type to LoRA"),
    ],
    ids=["both halved", "a batch of one", "many passes already", "one for each process", "all is small", "unknown"],
)
def test_a_lack_of_memory_is_answered_with_what_the_run_can_change(training: TrainRun | None, told: str) -> None:
    assert more_accelerator_memory(training) == f"{told}, or use a FineTuneClass with larger accelerators."
    assert more_memory(training) == f"{told}, or raise resources.memory of the FineTuneClass."
