"""The automatic hyperparameters, for values that a spec omits. Pure.

Each rule is explained in docs/explanation/auto-hyperparameters.md; a test compares the numbers on that page with this
code.
"""

from __future__ import annotations

import math

from finetune_api.finetunejob import (
    AdapterType,
    Best,
    Checkpoints,
    FineTuneJobSpec,
    Hyperparameters,
    Method,
    MethodRules,
    ResolvedHyperparameters,
)
from finetune_api.pod_contracts.outcome import PreflightReport

DEFAULT_SEED = 17
LONGEST_AUTOMATIC_LENGTH = 8192
_CONTINUED = 5
"""Divisor of the learning rate for a model that was already fine-tuned."""


def length_bound(max_length: int | None, context_length: int | None) -> int:
    """Maximum tokens per example, independent of the dataset: from the spec, otherwise from the automatic rule.

    `context_length` is None if the model's files do not say.
    """
    return max_length or min(context_length or LONGEST_AUTOMATIC_LENGTH, LONGEST_AUTOMATIC_LENGTH)


def sequence_length(max_length: int | None, max_tokens: int, context_length: int | None) -> int:
    """The spec's maxLength, or the longest example rounded up to a multiple of 64."""
    return max_length or min(length_bound(None, context_length), 64 * math.ceil(max(max_tokens, 1) / 64))


def resolve_for(
    spec: FineTuneJobSpec, report: PreflightReport, *, continued: bool | None = None
) -> ResolvedHyperparameters:
    """Complete a job's hyperparameters from what preflight found.

    `continued`: whether the model is the result of another job; None: the spec's reference says so.
    """
    training, parallelism = report.dataset.training, spec.parallelism
    assert training is not None
    return resolve_hyperparameters(
        spec.hyperparameters,
        method=spec.method,
        adapter=spec.adapter.type,
        checkpoints=spec.checkpoints,
        examples=training.examples,
        rows=training.rows,
        max_tokens=training.max_tokens,
        context_length=report.model.context_length,
        continued=spec.model.fine_tune_job_ref is not None if continued is None else continued,
        processes=parallelism.nodes * parallelism.processes_per_node,
        packing=bool(report.packing),
    )


def resolve_hyperparameters(
    spec: Hyperparameters,
    *,
    method: Method,
    adapter: AdapterType,
    checkpoints: Checkpoints,
    examples: int,
    max_tokens: int,
    context_length: int | None,
    continued: bool = False,
    processes: int = 1,
    rows: int | None = None,
    packing: bool = False,
) -> ResolvedHyperparameters:
    """Complete a spec's hyperparameters from the dataset (examples, tokens of the longest), the model and the
    processes.

    `rows`: the number of rows that batches are made of, if these are not examples but turns or packed rows.
    `packing`: whether rows are packed where the spec does not say; preflight decides it (`packs_by_default`).
    `continued`: whether the model is the result of another job.
    """
    rules = method.settings.rules
    # Small sets need more passes: as many as show 3,000 examples in all, from one to the method's most.
    passes = max(1, min(rules.most_epochs, round(3000 / max(examples, 1))))
    epochs = spec.epochs if spec.epochs is not None else float(passes)
    rows = rows or examples
    packing = rules.packs and (packing if spec.packing is None else spec.packing)
    share = _packed_batch(examples, rows, processes) if packing else _batch(rows)
    # A multiple of the processes, since each takes the same share.
    batch_size = spec.batch_size or processes * math.ceil(max(1, share) / processes)
    max_length = sequence_length(spec.max_length, max_tokens, context_length)
    total_steps = max(1, math.ceil(math.ceil(rows / batch_size) * epochs))
    return ResolvedHyperparameters(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=spec.learning_rate or learning_rate(rules, adapter, continued=continued),
        schedule=spec.schedule or "Cosine",
        warmup_percent=spec.warmup_percent if spec.warmup_percent is not None else 3.0,
        weight_decay=spec.weight_decay if spec.weight_decay is not None else 0.0,
        max_length=max_length,
        packing=packing,
        batch_tokens=batch_size * max_length if packing else None,
        seed=spec.seed if spec.seed is not None else DEFAULT_SEED,
        total_steps=total_steps,
        checkpoint_every_steps=checkpoints.every_steps or max(10, math.ceil(total_steps / 10)),
        **method.settings.hyperparameters(),
        early_stopping=spec.early_stopping,
    )


def packs_by_default(spec: Hyperparameters, rules: MethodRules, *, examples: int, rows: int, processes: int) -> bool:
    """Whether rows are packed on accelerators where the spec does not say, if the model's architecture can.

    Not where a step of one packed row per process would hold more than twice the examples of a step without packing:
    small sets need many steps. And a spec's batchSize counts examples unless it also asks for packing.

    `rows`: the number of packed rows that the examples make.
    """
    if spec.packing is not None or spec.batch_size is not None or not rules.packs:
        return False
    return _packed_batch(examples, rows, processes) > 0


def _batch(rows: int) -> int:
    """A fifth of a percent of the set, a power of two, from 4 to 64: small sets need many steps."""
    return min(64, max(4, 1 << round(math.log2(max(1.0, rows * 0.002)))))


def _packed_batch(examples: int, rows: int, processes: int) -> int:
    """The number of packed rows that hold about as many examples as a batch without packing.

    A multiple of the processes, rounded to the nearest; 0: one row per process is far more than that. At most a batch
    of as many unpacked rows: there are more rows than examples if a chat template makes one per answer.
    """
    unpacked = processes * math.ceil(_batch(examples) / processes)
    held = min(unpacked * rows / max(examples, 1), _batch(rows))
    return processes * math.floor(held / processes + 0.5)


def learning_rate(rules: MethodRules, adapter: AdapterType, *, continued: bool) -> float:
    """The peak learning rate; lower for a model that was already fine-tuned, to reduce forgetting."""
    rate = rules.learning_rates[adapter] / (_CONTINUED if continued and rules.forgets else 1)
    return float(f"{rate:.3g}")


def resolve_checkpoints(spec: Checkpoints, hyperparameters: Hyperparameters, method: Method) -> Checkpoints:
    """With early stopping the last step is past the best one, so the best checkpoint becomes the result. So it does of
    a training by rewards, which may fall again."""
    if spec.best is None and method.settings.rules.rewards:
        return spec.model_copy(update={"best": Best(metric="ValidReward", goal="Maximize")})
    if spec.best is None and hyperparameters.early_stopping is not None:
        return spec.model_copy(update={"best": Best(metric="EvalLoss")})
    return spec
