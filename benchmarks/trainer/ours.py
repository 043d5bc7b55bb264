"""The trainer as it runs in a Pod: fetches from the storage, reports, and saves checkpoints beside the training.

Two things differ from a Pod, for nothing else can be measured with: a stopwatch stands among the callbacks, and the
token for the reports lies in another place.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.trainer.stopwatch import Stopwatch
from benchmarks.trainer.workload import DATA, MODEL, SEED, Workload, load_workload
from e2e.cluster.machine.ports import free_ports
from finetune_api.finetunejob import (
    Adapter,
    Checkpoints,
    Dataset,
    Method,
    Parallelism,
    ResolvedHyperparameters,
)
from finetune_api.pod_contracts.run import JobIdentity, ModelSource, ProgressTarget, StorageConfig, TrainRun
from finetune_api.sources import ON_A_LAPTOP
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.ranks import ranks_alone_on_node, ranks_under_agent
from finetune_trainer.methods import dpo, sft
from finetune_trainer.methods.method import TrainerParts
from finetune_trainer.report.progress import ProgressSender
from finetune_trainer.train import build_trainer as building
from finetune_trainer.train.train import run_training

BUCKET = "benchmark"
REGION = "us-east-1"
ENDPOINT = "BENCHMARK_S3_ENDPOINT"
REPORTS = "BENCHMARK_REPORTS_URL"
OUTPUT = "BENCHMARK_OUTPUT"
ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "LoRA", "lora": {"rank": 16, "alpha": 32, "dropout": 0.0}},
    "QLoRA": {"type": "QLoRA", "qlora": {"rank": 16, "alpha": 32, "dropout": 0.0}},
    "Full": {"type": "Full"},
}


def train_with_finetune_trainer(directory: Path) -> dict[str, float]:
    """Train the workload of a folder, whose model and data lie in the bucket too; the figures of this process."""
    workload = load_workload(directory)
    token = directory / "token"
    token.write_text("none")
    stopwatch = Stopwatch(workload.warm_up)
    spent = {"callbacks": 0.0, "saves": 0.0}
    seen: dict[str, Any] = {}

    method: Any = dpo.DPOMethod if workload.method == "DPO" else sft.SFTMethod
    build_trainer = method.build_trainer

    def build_measured(self: Any, parts: TrainerParts) -> Any:
        for callback in parts.callbacks:
            for event in [name for name in dir(callback) if name.startswith("on_")]:
                setattr(callback, event, _timed(getattr(callback, event), stopwatch, spent, "callbacks"))
        trainer: Any = build_trainer(self, dataclasses.replace(parts, callbacks=[stopwatch, *parts.callbacks]))
        trainer._save_checkpoint = _timed(trainer._save_checkpoint, stopwatch, spent, "saves")
        seen["trainer"] = trainer
        return trainer

    method.build_trainer = build_measured
    patched: Any = building
    patched.ProgressSender = functools.partial(ProgressSender, token=token)
    run = _run(workload, directory)
    several = run.parallelism.processes_per_node > 1
    ranks = ranks_under_agent(os.environ) if several else ranks_alone_on_node(run.parallelism, {})
    gang = Gang(ranks)
    run_training(run, directory / "ours", gang)
    gang.leave()
    state = seen["trainer"].state
    return stopwatch.figures | {
        "trainLoss": state.log_history[-1]["train_loss"],
        "tokensOfStep": state.num_input_tokens_seen / state.global_step,
        "callbackSecondsOfStep": spent["callbacks"] / stopwatch.steps,
        "saveStandstillSecondsOfStep": spent["saves"] / stopwatch.steps,
    }


def _timed(call: Callable[..., Any], stopwatch: Stopwatch, spent: dict[str, float], name: str) -> Callable[..., Any]:
    def measure(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            if stopwatch.running:
                spent[name] += time.perf_counter() - began

    return measure


def _run(workload: Workload, directory: Path) -> TrainRun:
    """From the storage, or, where the model is too large to bring it there, from the folder."""
    endpoint = os.environ.get(ENDPOINT)
    source = directory.as_uri() if endpoint is None else f"s3://{BUCKET}"
    return TrainRun(
        job=JobIdentity(namespace="benchmarks", name="llama", uid="0", run_id="1"),
        attempt=1,
        storage=StorageConfig(endpoint=endpoint, region=REGION, path_style=True, local_folders=endpoint is None),
        output_uri=f"{source}/{os.environ[OUTPUT]}",
        model=ModelSource(uri=f"{source}/{MODEL}"),
        method=Method.model_validate({"type": workload.method}),
        adapter=Adapter.model_validate(ADAPTERS[workload.adapter]),
        dataset=Dataset.model_validate({"training": {"uri": f"{source}/{DATA}"}}, context=ON_A_LAPTOP),
        hyperparameters=ResolvedHyperparameters(
            epochs=1,
            batch_size=workload.batch,
            learning_rate=1e-4,
            schedule="Cosine",
            warmup_percent=10,
            weight_decay=0,
            max_length=workload.max_length,
            packing=workload.packing,
            seed=SEED,
            total_steps=workload.steps,
            beta=0.1 if workload.method == "DPO" else None,
            checkpoint_every_steps=workload.save_every,
        ),
        parallelism=Parallelism(
            processes_per_node=workload.processes, strategy="FSDP" if workload.processes > 1 else "DDP"
        ),
        checkpoints=Checkpoints(keep=1),
        progress=ProgressTarget(url=os.environ[REPORTS]),
        metrics_port=free_ports(1)[0],
    )
