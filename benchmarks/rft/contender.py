"""One training by one contender, in a process of its own: prints its figures as JSON.

python -m benchmarks.rft.contender plain|ours FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rft.workload import (
    COMPLETIONS,
    LEARNING_RATE,
    MODEL,
    PROMPTS,
    SEED,
    STEPS,
    TOKENS,
    TRAINING,
    VALIDATION,
    WARM_UP,
)
from finetune_trainer.process import environment


def main() -> None:
    """Train, and print."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    environment.prepare()
    figures = with_trl(directory) if name == "plain" else with_finetune_trainer(directory)
    sys.stdout.write(json.dumps(figures) + "\n")


def with_trl(directory: Path) -> dict[str, float]:
    """What an expert would write with TRL by hand, with the same metric as reward."""
    from datasets import load_dataset
    from rapidfuzz.fuzz import ratio
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        said = [one[0]["content"] for one in completions]
        return [ratio(text, wanted) / 100 for text, wanted in zip(said, answer, strict=True)]

    data = load_dataset("json", data_files=str(directory / TRAINING), split="train")
    watch = make_stopwatch()
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(directory / MODEL),
        args=GRPOConfig(
            output_dir=str(directory / "plain"),
            per_device_train_batch_size=PROMPTS * COMPLETIONS,
            num_generations=COMPLETIONS,
            max_completion_length=TOKENS,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            seed=SEED,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            gradient_checkpointing=False,
        ),
        reward_funcs=[reward],
        train_dataset=data.rename_column("messages", "prompt"),
        processing_class=AutoTokenizer.from_pretrained(directory / MODEL),
        callbacks=[watch],
    ).train()
    figures: dict[str, float] = watch.figures
    return figures


def with_finetune_trainer(directory: Path) -> dict[str, float]:
    """The trainer as it runs in a Pod, from a local folder."""
    from finetune_trainer.distributed.gang import Gang
    from finetune_trainer.distributed.ranks import ranks_alone_on_node
    from finetune_trainer.methods.rft.method import RFTMethod
    from finetune_trainer.train.train import run_training

    watch = make_stopwatch()
    build: Any = RFTMethod.build_trainer

    def build_watched(self: Any, parts: Any) -> Any:
        return build(self, dataclasses.replace(parts, callbacks=[watch, *parts.callbacks]))

    patched: Any = RFTMethod
    patched.build_trainer = build_watched
    run = _run(directory)
    run_training(run, directory / "ours", Gang(ranks_alone_on_node(run.parallelism, {})))
    figures: dict[str, float] = watch.figures
    return figures


def make_stopwatch() -> Any:
    """A callback that measures the steps between the warm-up and the end of the last one, before it is saved."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        figures: dict[str, float]

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == WARM_UP:
                self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == STEPS:
                steps = STEPS - WARM_UP
                wall, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
                samples = PROMPTS * COMPLETIONS * steps
                self.figures = {"samplesPerSecond": samples / wall, "samplesPerCpuSecond": samples / cpu}

    return Stopwatch()


def _run(directory: Path) -> Any:
    from finetune_api.finetunejob import (
        RFT,
        Adapter,
        Checkpoints,
        Dataset,
        Method,
        Parallelism,
        ResolvedHyperparameters,
    )
    from finetune_api.pod_contracts.run import JobIdentity, ModelSource, StorageConfig, TrainRun
    from finetune_api.sources import ON_A_LAPTOP

    source = directory.as_uri()
    similar = {"reference": "{{item.answer}}", "metric": "FuzzyMatch"}
    rft = {
        "graders": [{"name": "close", "type": "TextSimilarity", "textSimilarity": similar}],
        "completionsPerPrompt": COMPLETIONS,
        "maxCompletionTokens": TOKENS,
    }
    sets = {"training": {"uri": f"{source}/{TRAINING}"}, "validation": {"uri": f"{source}/{VALIDATION}"}}
    return TrainRun(
        job=JobIdentity(namespace="benchmarks", name="rft", uid="0", run_id="1"),
        attempt=1,
        storage=StorageConfig(region="us-east-1", local_folders=True),
        output_uri=f"{source}/output-{time.time_ns()}",
        model=ModelSource(uri=f"{source}/{MODEL}"),
        method=Method(type="RFT", rft=RFT.from_wire(rft)),
        adapter=Adapter(type="Full"),
        dataset=Dataset.model_validate(sets, context=ON_A_LAPTOP),
        hyperparameters=ResolvedHyperparameters(
            epochs=1,
            batch_size=PROMPTS,
            learning_rate=LEARNING_RATE,
            schedule="Constant",
            warmup_percent=0,
            weight_decay=0,
            max_length=192,
            packing=False,
            seed=SEED,
            total_steps=STEPS,
            checkpoint_every_steps=STEPS,
        ),
        parallelism=Parallelism(),
        checkpoints=Checkpoints(keep=1),
        metrics_port=None,
    )


if __name__ == "__main__":
    main()
