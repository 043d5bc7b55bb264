"""What a Pod of an evaluation generates of outputs, benchmarks and answers to attacks, if there are several Pods."""

from __future__ import annotations

from finetune_api.pod_contracts.run import EvaluateRun
from finetune_trainer.benchmarks.measuring import measure_all
from finetune_trainer.evaluation.nodes.shard import mark_shard_done
from finetune_trainer.evaluation.prepared import Prepared, prepare
from finetune_trainer.outputs.loaded_outputs import generate_outputs, loaded_once
from finetune_trainer.outputs.shard import Shard
from finetune_trainer.report.evaluation_progress import NoProgress, OutputCounter


def work(run: EvaluateRun, shard: Shard) -> None:
    """Generate this Pod's shard, for the first one to grade. Raises DiagnosedError as `evaluate` does."""
    with prepare(run) as prepared:
        generate_shard(prepared, shard, NoProgress())
    mark_shard_done(run, shard, prepared.storage)


def generate_shard(prepared: Prepared, shard: Shard, progress: OutputCounter) -> None:
    """Generate this Pod's shard of what loaded models are asked, and save it. Raises DiagnosedError."""
    run, storage = prepared.run, prepared.storage
    loaded = [(model.name, model.model) for model in run.models if model.model is not None]
    mine = shard.of((name, benchmark) for name, _ in loaded for benchmark in prepared.benchmarks)
    for name, model in loaded:
        with loaded_once(name, model, storage) as load:
            generate_outputs(name, model, run, prepared.examples, storage, progress, load, shard)
            of_model = [benchmark for of, benchmark in mine if of == name]
            measure_all(of_model, name, model, load, run.outputs_uri, storage, _ignore_examples)
            prepared.attacks.put_to_loaded(name, model, load, NoProgress(), shard)


def _ignore_examples(count: int, earlier: bool) -> None:
    """Count nothing."""
