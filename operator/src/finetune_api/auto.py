"""The automatic hyperparameters: what is used where a spec says nothing. Pure, and written down here only.

Rules of thumb of hosted fine-tuning services and of the LoRA literature (a LoRA's learning rate is about ten times that
of full fine-tuning), each a line below.
"""

from __future__ import annotations

import math

from finetune_api.finetunejob import (
    AdapterType,
    Checkpoints,
    FineTuneJobSpec,
    Hyperparameters,
    ResolvedHyperparameters,
)
from finetune_api.outcome import PreflightReport

DEFAULT_SEED = 17
LONGEST_AUTOMATIC_LENGTH = 8192
_LEARNING_RATE: dict[AdapterType, float] = {"LoRA": 2e-4, "Full": 2e-5}


def length_bound(max_length: int | None, context_length: int) -> int:
    """Tokens beyond which an example is cut, whatever the dataset: what the spec says, else what a rule allows."""
    return max_length or min(context_length, LONGEST_AUTOMATIC_LENGTH)


def resolve_for(spec: FineTuneJobSpec, report: PreflightReport) -> ResolvedHyperparameters:
    """Complete a job's hyperparameters from what preflight found."""
    training, parallelism = report.dataset.training, spec.parallelism
    assert training is not None
    return resolve_hyperparameters(
        spec.hyperparameters,
        adapter=spec.adapter.type,
        checkpoints=spec.checkpoints,
        examples=training.examples,
        max_tokens=training.max_tokens,
        context_length=report.model.context_length,
        processes=parallelism.nodes * parallelism.processes_per_node,
    )


def resolve_hyperparameters(
    spec: Hyperparameters,
    *,
    adapter: AdapterType,
    checkpoints: Checkpoints,
    examples: int,
    max_tokens: int,
    context_length: int,
    processes: int = 1,
) -> ResolvedHyperparameters:
    """Complete a spec's hyperparameters from the dataset (examples, tokens of the longest), the model and the gang."""
    # Small sets need more passes: as many as show 3,000 examples in all, from one to ten.
    epochs = spec.epochs if spec.epochs is not None else float(max(1, min(10, round(3000 / max(examples, 1)))))
    # A fifth of a percent of the set, a power of two, from 4 to 64: small sets need many steps. Then a multiple of the
    # processes, since each takes the same share.
    share = min(64, max(4, 2 ** round(math.log2(max(1.0, examples * 0.002)))))
    batch_size = spec.batch_size or processes * math.ceil(share / processes)
    # Long enough for the longest example, in steps of 64.
    bound = length_bound(spec.max_length, context_length)
    max_length = spec.max_length or min(bound, 64 * math.ceil(max(max_tokens, 1) / 64))
    total_steps = max(1, math.ceil(math.ceil(examples / batch_size) * epochs))
    return ResolvedHyperparameters(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=spec.learning_rate if spec.learning_rate is not None else _LEARNING_RATE[adapter],
        schedule=spec.schedule or "Cosine",
        warmup_percent=spec.warmup_percent if spec.warmup_percent is not None else 3.0,
        weight_decay=spec.weight_decay if spec.weight_decay is not None else 0.0,
        max_length=max_length,
        packing=spec.packing if spec.packing is not None else False,
        seed=spec.seed if spec.seed is not None else DEFAULT_SEED,
        total_steps=total_steps,
        checkpoint_every_steps=checkpoints.every_steps or max(10, math.ceil(total_steps / 10)),
    )
