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
from finetune_api.outcome import PreflightReport

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
) -> ResolvedHyperparameters:
    """Complete a spec's hyperparameters from the dataset (examples, tokens of the longest), the model and the
    processes.

    `rows`: the number of rows that batches are made of, if these are not examples but turns or packed rows.
    `continued`: whether the model is the result of another job.
    """
    rules = method.settings.rules
    # Small sets need more passes: as many as show 3,000 examples in all, from one to the method's most.
    passes = max(1, min(rules.most_epochs, round(3000 / max(examples, 1))))
    epochs = spec.epochs if spec.epochs is not None else float(passes)
    # A fifth of a percent of the set, a power of two, from 4 to 64: small sets need many steps. Then a multiple of the
    # processes, since each takes the same share.
    rows = rows or examples
    share = min(64, max(4, 2 ** round(math.log2(max(1.0, rows * 0.002)))))
    batch_size = spec.batch_size or processes * math.ceil(share / processes)
    max_length = sequence_length(spec.max_length, max_tokens, context_length)
    total_steps = max(1, math.ceil(math.ceil(rows / batch_size) * epochs))
    packing = spec.packing if spec.packing is not None else False
    return ResolvedHyperparameters(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=spec.learning_rate or learning_rate(rules, adapter, continued=continued),
        schedule=spec.schedule or "Cosine",
        warmup_percent=spec.warmup_percent if spec.warmup_percent is not None else 3.0,
        weight_decay=spec.weight_decay if spec.weight_decay is not None else 0.0,
        max_length=max_length,
        packing=packing,
        batch_tokens=batch_size * max_length if packing and rules.packs else None,
        seed=spec.seed if spec.seed is not None else DEFAULT_SEED,
        total_steps=total_steps,
        checkpoint_every_steps=checkpoints.every_steps or max(10, math.ceil(total_steps / 10)),
        **method.settings.hyperparameters(),
        early_stopping=spec.early_stopping,
    )


def learning_rate(rules: MethodRules, adapter: AdapterType, *, continued: bool) -> float:
    """The peak learning rate; lower for a model that was already fine-tuned, to reduce forgetting."""
    rate = rules.learning_rates[adapter] / (_CONTINUED if continued and rules.forgets else 1)
    return float(f"{rate:.3g}")


def resolve_checkpoints(spec: Checkpoints, hyperparameters: Hyperparameters) -> Checkpoints:
    """With early stopping the last step is past the best one, so the best checkpoint becomes the result."""
    if spec.best is None and hyperparameters.early_stopping is not None:
        return spec.model_copy(update={"best": Best(metric="EvalLoss")})
    return spec
