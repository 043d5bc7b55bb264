"""One Pod's share of what loaded models are asked: outputs, answers to attacks, and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.pod_contracts.run import EvaluateRun
from finetune_trainer.benchmarks.measuring import PreparedBenchmark, measure_all
from finetune_trainer.evaluation.nodes.share import wait_for_others
from finetune_trainer.evaluation.safety.attacking import Attacks
from finetune_trainer.outputs.heldout import HeldOutExample
from finetune_trainer.outputs.loaded_outputs import generate_outputs, loaded_once
from finetune_trainer.outputs.share import Share
from finetune_trainer.report.evaluation_progress import OutputCounter, Uncounted
from finetune_trainer.storage.storage import Storage


def make_share(
    run: EvaluateRun,
    share: Share,
    examples: Sequence[HeldOutExample],
    storage: Storage,
    benchmarks: Sequence[PreparedBenchmark],
    attacks: Attacks,
    progress: OutputCounter,
) -> None:
    """Make this Pod's share, and save it. Raises DiagnosedError."""
    loaded = [(model.name, model.model) for model in run.models if model.model is not None]
    mine = share.of((name, benchmark) for name, _ in loaded for benchmark in benchmarks)
    for name, model in loaded:
        with loaded_once(name, model, storage) as load:
            generate_outputs(name, model, run, examples, storage, progress, load, share)
            of_model = [benchmark for of, benchmark in mine if of == name]
            measure_all(of_model, name, model, load, run.outputs_uri, storage, _ignore_examples)
            attacks.put_to_loaded(name, model, load, Uncounted(), share)


def share_with_others(
    run: EvaluateRun,
    share: Share,
    examples: Sequence[HeldOutExample],
    storage: Storage,
    benchmarks: Sequence[PreparedBenchmark],
    attacks: Attacks,
    progress: OutputCounter,
) -> None:
    """Make the first Pod's share, and wait for the others; nothing if it is alone. Raises DiagnosedError."""
    if share.nodes > 1:
        make_share(run, share, examples, storage, benchmarks, attacks, progress)
        wait_for_others(run, share, storage)


def _ignore_examples(count: int, earlier: bool) -> None:
    """Count nothing."""
