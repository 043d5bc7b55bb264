"""Automatic hyperparameters: a table of what is chosen, and that it is always something a spec could say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.default_hyperparameters import (
    length_bound,
    packs_by_default,
    resolve_checkpoints,
    resolve_hyperparameters,
)
from finetune_api.finetunejob import (
    DPO,
    AdapterType,
    Best,
    Checkpoints,
    EarlyStopping,
    Hyperparameters,
    Method,
    MethodType,
    ResolvedHyperparameters,
)

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "auto-hyperparameters.md"


METHODS: dict[str, Method] = {
    "SFT": Method(),
    "DPO": Method(type="DPO"),
    "RFT": Method.from_wire({"type": "RFT", "rft": {"graders": [{"name": "exact", "type": "StringCheck"}]}}),
    "Distillation": Method.from_wire({"type": "Distillation", "distillation": {"teacher": {"uri": "s3://models/big"}}}),
}


def resolved(spec: dict[str, Any] | None = None, **changes: Any) -> ResolvedHyperparameters:
    known: dict[str, Any] = {
        "method": Method(),
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


@pytest.mark.parametrize(
    ("method", "adapter", "rate", "continued"),
    [
        ("SFT", "LoRA", 2e-4, 4e-5),
        ("SFT", "QLoRA", 2e-4, 4e-5),
        ("SFT", "Full", 2e-5, 4e-6),
        ("DPO", "LoRA", 2e-5, 2e-5),
        ("DPO", "QLoRA", 2e-5, 2e-5),
        ("DPO", "Full", 2e-6, 2e-6),
        ("RFT", "LoRA", 2e-5, 2e-5),
        ("RFT", "Full", 1e-6, 1e-6),
        ("Distillation", "QLoRA", 1e-4, 1e-4),
        ("Distillation", "Full", 1e-5, 1e-5),
    ],
)
def test_the_learning_rate_depends_on_the_method_the_adapter_and_the_start(
    method: MethodType, adapter: AdapterType, rate: float, continued: float
) -> None:
    assert resolved(method=METHODS[method], adapter=adapter).learning_rate == rate
    assert resolved(method=METHODS[method], adapter=adapter, continued=True).learning_rate == continued


@pytest.mark.parametrize(("examples", "epochs"), [(10, 3), (1000, 3), (1500, 2), (10_000, 1)])
def test_preferences_are_seen_three_times_at_most(examples: int, epochs: float) -> None:
    assert resolved(method=Method(type="DPO"), examples=examples).epochs == epochs


@pytest.mark.parametrize(
    ("method", "beta"),
    [
        (Method(), None),
        (Method(type="DPO"), 0.1),
        (Method(type="DPO", dpo=DPO(loss_type="IPO")), 0.1),
        (Method(type="DPO", dpo=DPO(beta=0.5)), 0.5),
    ],
)
def test_beta_is_of_dpo_alone(method: Method, beta: float | None) -> None:
    assert resolved(method=method).beta == beta


STOPPING = EarlyStopping(patience=2, min_delta=0.01)
TRAIN_LOSS, EVAL_LOSS = Best(metric="TrainLoss"), Best(metric="EvalLoss")


@pytest.mark.parametrize(
    ("stopping", "best", "expected"),
    [
        (None, None, None),
        (None, TRAIN_LOSS, TRAIN_LOSS),
        (STOPPING, None, EVAL_LOSS),
        (STOPPING, TRAIN_LOSS, TRAIN_LOSS),
    ],
)
def test_a_run_that_stops_early_results_in_its_best_checkpoint(
    stopping: EarlyStopping | None, best: Best | None, expected: Best | None
) -> None:
    hyperparameters = Hyperparameters(early_stopping=stopping)
    found = resolve_checkpoints(Checkpoints(keep=7, best=best), hyperparameters, Method())
    assert found == Checkpoints(keep=7, best=expected)


def test_a_run_by_rewards_results_in_the_checkpoint_with_the_best_one() -> None:
    found = resolve_checkpoints(Checkpoints(), Hyperparameters(), METHODS["RFT"])
    assert found.best == Best(metric="ValidReward", goal="Maximize")


def test_early_stopping_is_shown_among_what_was_resolved() -> None:
    assert resolved({"earlyStopping": {"patience": 2, "minDelta": 0.01}}).early_stopping == STOPPING
    assert resolved().early_stopping is None


def tables_of_page() -> list[list[list[str]]]:
    """The tables of the page, as rows of cells without their heads."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("|") and not before.startswith("|"):
            tables.append([])
        if line.startswith("|"):
            tables[-1].append([cell.strip(" `") for cell in line.strip("|").split("|")])
        before = line
    return [table[2:] for table in tables]


def test_the_page_has_the_numbers_of_the_code() -> None:
    rates, sizes, lengths, rest = tables_of_page()
    for method, adapter, rate, continued in rates:
        known: dict[str, Any] = {"method": METHODS[method], "adapter": adapter}
        assert [resolved(**known).learning_rate, resolved(**known, continued=True).learning_rate] == [
            float(rate),
            float(continued),
        ]
    for examples, sft_epochs, dpo_epochs, batch_size, steps, every in sizes:
        found = resolved(examples=int(examples.replace(",", "")))
        assert resolved(method=Method(type="DPO"), examples=int(examples.replace(",", ""))).epochs == float(dpo_epochs)
        assert [found.epochs, found.batch_size] == [float(sft_epochs), int(batch_size)]
        assert [found.total_steps, found.checkpoint_every_steps] == [int(steps.replace(",", "")), int(every)]
    for longest, context, length in lengths:
        assert resolved(max_tokens=int(longest), context_length=int(context)).max_length == int(length)
    found_rest = resolved(method=Method(type="DPO")).to_wire()
    assert {name: str(found_rest[name]) for name, _ in rest} == dict(rest)


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


@pytest.mark.parametrize(
    ("examples", "rows", "processes", "batch_size"),
    [
        (1500, 700, 1, 2),
        (10_000, 1000, 1, 2),
        (10_000, 1000, 2, 2),
        (100_000, 25_000, 8, 16),
        (300, 40, 1, 1),  # eight examples a row, where a step without packing has four
        (300, 30, 1, None),
        (300, 100, 8, None),
    ],
)
def test_packed_rows_hold_about_the_examples_of_a_batch(
    examples: int, rows: int, processes: int, batch_size: int | None
) -> None:
    rules = Method().settings.rules
    packs = packs_by_default(Hyperparameters(), rules, examples=examples, rows=rows, processes=processes)
    assert packs is (batch_size is not None)
    if packs:
        found = resolved(examples=examples, rows=rows, processes=processes, packing=True)
        assert (found.packing, found.batch_size, found.batch_tokens) == (
            True,
            batch_size,
            found.max_length * found.batch_size,
        )


@given(st.integers(1, 10**7), st.floats(0.001, 1), st.sampled_from([1, 2, 3, 8, 64, 1024]))
def test_packing_by_default_neither_halves_the_steps_nor_doubles_them(
    examples: int, share: float, processes: int
) -> None:
    rows = math.ceil(examples * share)
    if packs_by_default(Hyperparameters(), Method().settings.rules, examples=examples, rows=rows, processes=processes):
        packed = resolved(examples=examples, rows=rows, processes=processes, packing=True)
        apart = resolved(examples=examples, processes=processes)
        assert packed.batch_size % processes == 0
        assert apart.batch_size / 2 <= packed.batch_size * examples / rows <= 2 * apart.batch_size


@pytest.mark.parametrize("spec", [{"packing": False}, {"packing": True}, {"batchSize": 2}])
def test_what_the_spec_says_of_batches_leaves_nothing_to_choose(spec: dict[str, Any]) -> None:
    hyperparameters, rules = Hyperparameters.from_wire(spec), Method().settings.rules
    assert not packs_by_default(hyperparameters, rules, examples=10_000, rows=5000, processes=1)


def test_preferences_are_never_packed() -> None:
    rules = Method(type="DPO").settings.rules
    assert not packs_by_default(Hyperparameters(), rules, examples=10_000, rows=5000, processes=1)


def test_a_spec_may_turn_off_what_preflight_chose() -> None:
    assert not resolved({"packing": False}, packing=True).packing


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
    "earlyStopping": {"patience": 1, "minDelta": 0.5},
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_the_spec_says_is_used(name: str) -> None:
    assert resolved({name: EVERYTHING[name]}).to_wire()[name] == EVERYTHING[name]


@given(
    st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in EVERYTHING.items()}),
    st.integers(0, 10**9),
    st.integers(0, 10**7),
    st.integers(8, 10**6),
    st.sampled_from(["LoRA", "QLoRA", "Full"]),
    st.sampled_from(["SFT", "DPO"]),
    st.booleans(),
)
def test_every_value_is_one_that_a_spec_could_say(
    spec: dict[str, Any],
    examples: int,
    max_tokens: int,
    context_length: int,
    adapter: AdapterType,
    method: MethodType,
    continued: bool,
) -> None:
    found = resolved(
        spec,
        examples=examples,
        max_tokens=max_tokens,
        context_length=context_length,
        adapter=adapter,
        method=Method(type=method),
        continued=continued,
    )
    chosen = found.to_wire()
    chosen.pop("beta", None)
    total_steps, every = chosen.pop("totalSteps"), chosen.pop("checkpointEverySteps")
    chosen.pop("batchTokens", None)
    assert Hyperparameters.from_wire(chosen).to_wire() == chosen
    assert total_steps >= 1
    assert every >= 1
    assert total_steps >= math.floor(examples * found.epochs / found.batch_size)
    assert "maxLength" in spec or found.max_length <= context_length
