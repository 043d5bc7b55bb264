"""Automatic hyperparameters: a table of what is chosen, and that it is always something a spec could say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.auto import length_bound, resolve_hyperparameters
from finetune_api.finetunejob import AdapterType, Checkpoints, Hyperparameters, ResolvedHyperparameters


def resolved(spec: dict[str, Any] | None = None, **changes: Any) -> ResolvedHyperparameters:
    known: dict[str, Any] = {
        "adapter": "LoRA",
        "checkpoints": Checkpoints(),
        "examples": 1500,
        "max_tokens": 120,
        "context_length": 512,
    }
    return resolve_hyperparameters(Hyperparameters.from_wire(spec or {}), **{**known, **changes})


@pytest.mark.parametrize(
    ("examples", "epochs", "batch_size", "total_steps"),
    [(10, 10, 4, 30), (300, 10, 4, 750), (1500, 2, 4, 750), (10_000, 1, 16, 625), (10**6, 1, 64, 15_625)],
)
def test_small_sets_get_more_passes_and_large_ones_larger_batches(
    examples: int, epochs: float, batch_size: int, total_steps: int
) -> None:
    found = resolved(examples=examples)
    assert (found.epochs, found.batch_size, found.total_steps) == (epochs, batch_size, total_steps)


@pytest.mark.parametrize(("adapter", "rate"), [("LoRA", 2e-4), ("Full", 2e-5)])
def test_an_adapter_learns_ten_times_as_fast_as_all_weights(adapter: AdapterType, rate: float) -> None:
    assert resolved(adapter=adapter).learning_rate == rate


@pytest.mark.parametrize(
    ("max_tokens", "context_length", "max_length"),
    [(1, 512, 64), (64, 512, 64), (65, 512, 128), (10_000, 512, 512), (10_000, 131_072, 8192)],
)
def test_sequences_are_as_long_as_the_longest_example(max_tokens: int, context_length: int, max_length: int) -> None:
    assert resolved(max_tokens=max_tokens, context_length=context_length).max_length == max_length


@pytest.mark.parametrize(
    ("asked", "context_length", "bound"),
    [(None, 512, 512), (None, 131_072, 8192), (100, 512, 100), (9000, 10_000, 9000)],
)
def test_no_sequence_is_longer_than_the_bound_that_preflight_counts_with(
    asked: int | None, context_length: int, bound: int
) -> None:
    assert length_bound(asked, context_length) == bound
    spec = {} if asked is None else {"maxLength": asked}
    assert resolved(spec, max_tokens=10**6, context_length=context_length).max_length == bound


@pytest.mark.parametrize(
    ("every_steps", "examples", "expected"), [(None, 10, 10), (None, 10**6, 1563), (7, 10**6, 7), (100, 10, 100)]
)
def test_a_tenth_of_the_run_lies_between_checkpoints(every_steps: int | None, examples: int, expected: int) -> None:
    found = resolved(checkpoints=Checkpoints(every_steps=every_steps), examples=examples)
    assert found.checkpoint_every_steps == expected


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 4), (2, 4), (3, 6), (4, 4), (8, 8)])
def test_an_automatic_batch_is_shared_evenly_by_all_processes(processes: int, batch_size: int) -> None:
    assert resolved(processes=processes).batch_size == batch_size


EVERYTHING = {
    "epochs": 1.5,
    "batchSize": 3,
    "learningRate": 0.5,
    "schedule": "Linear",
    "warmupPercent": 0.0,
    "weightDecay": 0.1,
    "maxLength": 77,
    "packing": True,
    "seed": 0,
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_the_spec_says_is_used(name: str) -> None:
    assert resolved({name: EVERYTHING[name]}).to_wire()[name] == EVERYTHING[name]


@given(
    st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in EVERYTHING.items()}),
    st.integers(0, 10**9),
    st.integers(0, 10**7),
    st.integers(8, 10**6),
    st.sampled_from(["LoRA", "Full"]),
)
def test_every_value_is_one_that_a_spec_could_say(
    spec: dict[str, Any], examples: int, max_tokens: int, context_length: int, adapter: AdapterType
) -> None:
    found = resolved(spec, examples=examples, max_tokens=max_tokens, context_length=context_length, adapter=adapter)
    chosen = found.to_wire()
    total_steps, every = chosen.pop("totalSteps"), chosen.pop("checkpointEverySteps")
    assert Hyperparameters.from_wire(chosen).to_wire() == chosen
    assert total_steps >= 1
    assert every >= 1
    assert total_steps >= math.floor(examples * found.epochs / found.batch_size)
    assert "maxLength" in spec or found.max_length <= context_length
