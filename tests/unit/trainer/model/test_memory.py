"""The estimate of memory: what is counted is exact, what is estimated grows with what it depends on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, MixtralConfig

from finetune_api.finetunejob import DPO, SFT, Adapter, Freeze, Full, LoRA, Parallelism, QLoRA
from finetune_trainer.methods.dpo import DPOMethod
from finetune_trainer.methods.sft import SFTMethod
from finetune_trainer.model.memory import (
    GIB,
    ModelSize,
    Plan,
    advise,
    estimate,
    fits,
    is_frozen,
    is_linear,
    model_size,
    plan_micro_batches,
    plan_of,
)

QWEN_8B = ModelSize(
    parameters=8_190_735_360,
    layers=36,
    hidden=4096,
    intermediate=12288,
    adapter_parameters=43_646_976,
    adapted_inputs=4 * 4096 + 2 * 4096 + 12288,
    linear_parameters=6_945_767_424,
)
DPO_MEMORY = DPOMethod(DPO()).memory
ALONE = Plan(full=False, sharded=False, processes=1, micro_batch_size=4, max_length=2048)
SHAPES = {
    "model.embed_tokens.weight": (1000, 64),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 128),
    "model.layers.1.self_attn.q_proj.weight": (64, 64),
    "model.layers.1.mlp.down_proj.weight": (64, 128),
    "lm_head.weight": (1000, 64),
}
CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=64, intermediate_size=128)


def size(adapter: Adapter, adapter_shapes: dict[str, tuple[int, ...]] | None = None) -> ModelSize:
    found = model_size(CONFIG, SHAPES, adapter_shapes or {}, adapter)
    assert found is not None
    return found


def test_the_adapter_that_is_trained_is_counted_whether_new_or_inherited() -> None:
    one = {"layers.0.a.lora_A.weight": (3, 64), "layers.0.a.lora_B.weight": (64, 3)}
    other = {"layers.1.a.lora_A.default.weight": (3, 32), "layers.1.a.lora_B.default.weight": (64, 3)}
    found = size(Adapter(lora=LoRA(rank=8)), one | other)
    assert found.adapter_parameters == 384 + 288
    assert found.adapted_inputs == (64 + 32) // 2
    assert size(Adapter(type="Full", full=Full())).adapter_parameters == 0


@pytest.mark.parametrize(
    ("weight", "linear"),
    [
        ("model.layers.0.mlp.up_proj.weight", True),
        ("model.layers.0.mlp.up_proj.bias", False),
        ("model.embed_tokens.weight", False),
        ("transformer.wte.weight", False),
        ("lm_head.weight", False),
    ],
)
def test_embeddings_and_the_output_layer_stay_whole_in_4_bits(weight: str, linear: bool) -> None:
    assert is_linear(weight) is linear


def test_a_config_that_does_not_tell_gives_no_estimate() -> None:
    assert model_size(object(), SHAPES, {}, Adapter()) is None


P, A, LINEAR = QWEN_8B.parameters, QWEN_8B.adapter_parameters, QWEN_8B.linear_parameters
LAYER = P // QWEN_8B.layers
COUNTED: list[tuple[dict[str, Any], tuple[int, int, int, int]]] = [
    # plan -> weights, adapter, gradients, optimizer
    ({}, (2 * P, 4 * A, 4 * A, 8 * A)),
    ({"full": True}, (4 * P + 2 * P, 0, 4 * P, 8 * P)),
    ({"processes": 2}, (2 * P, 4 * A, 2 * 4 * A, 8 * A)),
    ({"processes": 4, "sharded": True}, (P // 2 + 4 * LAYER, A, A, 2 * A)),
    ({"processes": 4, "sharded": True, "full": True}, (P + 4 * LAYER, 0, P + 6 * LAYER, 2 * P)),
    ({"method": DPO_MEMORY}, (2 * P, 4 * A, 4 * A, 8 * A)),
    ({"method": DPO_MEMORY, "full": True}, (4 * P + 2 * P + 2 * P, 0, 4 * P, 8 * P)),
    ({"quantized": True}, (2 * P - int(1.484 * LINEAR) + 2 * 4096 * 12288, 4 * A, 4 * A, 8 * A)),
]


@pytest.mark.parametrize(("changes", "expected"), COUNTED)
def test_what_is_kept_is_counted(changes: dict[str, Any], expected: tuple[int, int, int, int]) -> None:
    memory = estimate(QWEN_8B, replace(ALONE, **changes), None)
    assert (memory.weights, memory.adapter, memory.gradients, memory.optimizer) == expected
    assert memory.total == sum(expected) + memory.activations


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 12 * A),
        ({"quantized": True}, 12 * A),
        ({"full": True}, 12 * P),
        ({"processes": 8, "sharded": True}, 12 * A + 2 * P),
        ({"processes": 8, "sharded": True, "full": True}, 12 * P + 4 * P),
        ({"processes": 16, "nodes": 2, "sharded": True, "full": True}, 6 * P + 4 * P),
        ({"processes": 16, "nodes": 2, "full": True, "method": DPO_MEMORY}, 6 * P),
    ],
    ids=str,
)
def test_host_memory_is_for_the_checkpoint_and_for_a_model_that_is_sharded(
    changes: dict[str, Any], expected: int
) -> None:
    assert estimate(QWEN_8B, replace(ALONE, **changes), None).host == expected


def test_a_sharded_model_s_output_layer_stays_gathered_and_its_gradients_are_reduced_last() -> None:
    """Of the shape of Llama-3-8B: embeddings and output layer are 0.5 billion parameters each."""
    outer = 128_256 * 4096
    model = replace(LLAMA_8B, embedding_parameters=outer, head_parameters=outer)
    layer = (model.parameters - 2 * outer) // 32
    plan = replace(ALONE, processes=8, sharded=True, full=True, micro_batch_size=1, max_length=256)
    memory = estimate(model, plan, None)
    assert memory.weights == math.ceil(4 * model.parameters / 8) + 2 * (2 * layer + outer)
    assert memory.gradients == math.ceil(4 * model.parameters / 8) + 2 * (layer + outer) + 4 * layer
    assert memory.activations == 4 * outer + 4 * (outer + outer), "which is more than those of 256 tokens"
    assert not fits(estimate(model, replace(plan, max_length=4096), 24 * 10**9))


def test_a_shared_weight_is_the_output_layer_s() -> None:
    apart, tied = (
        size(Adapter()),
        model_size(CONFIG, {n: s for n, s in SHAPES.items() if "lm_head" not in n}, {}, Adapter()),
    )
    assert tied is not None
    assert (apart.embedding_parameters, apart.head_parameters) == (64_000, 64_000)
    assert (tied.embedding_parameters, tied.head_parameters) == (0, 64_000)


def test_frozen_weights_have_no_gradients_and_no_moments() -> None:
    half = replace(QWEN_8B, frozen_parameters=P // 2)
    memory, whole = (estimate(model, replace(ALONE, full=True), None) for model in (half, QWEN_8B))
    assert (memory.weights, memory.gradients, memory.optimizer) == (whole.weights, 4 * (P - P // 2), 8 * (P - P // 2))


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (None, 0),
        (Freeze(), 0),
        (Freeze(embeddings=True), 1000 * 64),
        (Freeze(layers=1), 64 + 64 * 64 + 64 * 128),
        (Freeze(layers=2, embeddings=True), 1000 * 64 + 64 + 2 * (64 * 64 + 64 * 128)),
    ],
)
def test_what_is_frozen_is_counted_from_the_shapes(freeze: Freeze | None, frozen: int) -> None:
    assert size(Adapter(type="Full", full=Full(freeze=freeze))).frozen_parameters == frozen
    assert not is_frozen("lm_head.weight", freeze)
    assert size(Adapter()).linear_parameters == 2 * (64 * 64 + 64 * 128)


def test_dpo_computes_two_sequences_of_an_example() -> None:
    one, two = (
        estimate(QWEN_8B, replace(ALONE, method=method), None) for method in (SFTMethod(SFT()).memory, DPO_MEMORY)
    )
    assert two.activations == 2 * one.activations


def test_an_8b_model_in_4_bits_fits_where_one_in_16_does_not() -> None:
    plan = replace(ALONE, micro_batch_size=1)
    assert fits(estimate(QWEN_8B, replace(plan, quantized=True), 12 * GIB))
    assert not fits(estimate(QWEN_8B, plan, 12 * GIB))


def test_activations_grow_with_the_tokens_of_a_pass() -> None:
    one = estimate(QWEN_8B, replace(ALONE, micro_batch_size=1), None).activations
    assert estimate(QWEN_8B, ALONE, None).activations == 4 * one
    assert estimate(QWEN_8B, replace(ALONE, micro_batch_size=2, max_length=1024), None).activations == one
    inside = 16 * 4096 + 2 * QWEN_8B.keys_and_values + 8 * 12288
    assert one == 2048 * (36 * 2 * 4096 + inside)
    dropped = replace(ALONE, micro_batch_size=1, dropout=True)
    assert estimate(QWEN_8B, dropped, None).activations == one + 2048 * 3 * QWEN_8B.adapted_inputs
    kept = replace(ALONE, micro_batch_size=1, gradient_checkpointing=False)
    assert estimate(QWEN_8B, kept, None).activations == 2048 * 36 * inside


LLAMA_8B = ModelSize(
    parameters=8_030_261_248,
    layers=32,
    hidden=4096,
    intermediate=14336,
    adapter_parameters=41_943_040,
    adapted_inputs=4 * 4096 + 2 * 4096 + 14336,
    keys_and_values=2 * 1024,
)


@pytest.mark.parametrize(("rows", "checkpointing", "measured"), [(1, False, 41.3), (1, True, 18.9)])
def test_the_estimate_is_what_an_h200_took(rows: int, checkpointing: bool, measured: float) -> None:
    """LoRA of 8 B, rank 16, rows of 4096 tokens: torch.cuda.max_memory_allocated in GB, without fused kernels."""
    plan = Plan(False, False, 1, micro_batch_size=rows, max_length=4096, gradient_checkpointing=checkpointing)
    assert estimate(LLAMA_8B, plan, None).total / 1e9 == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("gib", "examples", "checkpointing"),
    [(139, 4, False), (79, 2, False), (47, 1, False), (32, 4, True), (20, 1, True)],
)
def test_activations_are_kept_where_they_fit_and_then_passes_are_as_large_as_they_can_be(
    gib: int, examples: int, checkpointing: bool
) -> None:
    chosen = plan_micro_batches(LLAMA_8B, replace(ALONE, max_length=4096), [1, 2, 4], gib * GIB)
    assert (chosen.micro_batch_size, chosen.gradient_checkpointing) == (examples, checkpointing)


def test_a_mixture_of_experts_computes_a_token_with_a_few_and_keeps_them_whole() -> None:
    """transformers makes one weight of a layer's experts, which bitsandbytes leaves as it is."""
    shapes = {"model.layers.0.self_attn.q_proj.weight": (64, 64), "model.layers.0.mlp.experts.up_proj": (8, 32, 64)}
    config = MixtralConfig(num_hidden_layers=1, hidden_size=64, intermediate_size=32, num_experts_per_tok=4)
    mixture = model_size(config, shapes, {}, Adapter(type="QLoRA", qlora=QLoRA(rank=8)))
    assert mixture is not None
    assert mixture.parameters == 64 * 64 + 8 * 32 * 64
    assert mixture.linear_parameters == 64 * 64
    assert mixture.intermediate == 4 * 32
    chosen = plan_micro_batches(mixture, replace(ALONE, gradient_checkpointing=False), [1, 2, 4], 1000 * GIB)
    assert chosen == replace(ALONE, gradient_checkpointing=True)


def test_an_8b_model_with_lora_fits_where_people_run_it() -> None:
    """LoRA of 8 B in bfloat16 with gradient checkpointing runs on 24 GiB; full fine-tuning takes more than 80."""
    assert fits(estimate(QWEN_8B, replace(ALONE, micro_batch_size=2), 24 * GIB))
    assert not fits(estimate(QWEN_8B, replace(ALONE, full=True), 80 * GIB))
    assert fits(estimate(QWEN_8B, replace(ALONE, full=True, sharded=True, processes=8), 80 * GIB))


ADVICE: list[tuple[dict[str, Any], int, str | None]] = [
    ({}, 32, None),
    ({"micro_batch_size": 8}, 20, "With hyperparameters.batchSize 1 it should fit."),
    ({"full": True}, 80, "With adapter.type LoRA it should fit."),
    ({"full": True, "processes": 8}, 80, "With parallelism.strategy FSDP it should fit."),
    ({"micro_batch_size": 1, "max_length": 16384}, 20, "maxLength 4096 and batchSize 1 it should fit."),
    ({}, 8, "Use a smaller model, or a FineTuneClass with larger accelerators."),
]


@pytest.mark.parametrize(("changes", "gib", "said"), ADVICE)
def test_advice_is_the_least_change_that_fits(changes: dict[str, Any], gib: int, said: str | None) -> None:
    plan = replace(ALONE, **changes)
    advice = advise(QWEN_8B, plan, estimate(QWEN_8B, plan, gib * GIB))
    assert (advice is None) == (said is None)
    if said is not None and advice is not None:
        assert advice.endswith(said), advice
        assert f"which has {gib}.0 GiB" in advice


def test_an_accelerator_of_unknown_memory_is_not_warned_of() -> None:
    assert advise(QWEN_8B, ALONE, estimate(QWEN_8B, ALONE, None)) is None


@given(
    st.sampled_from(["LoRA", "QLoRA", "Full"]),
    st.sampled_from(["DDP", "FSDP"]),
    st.sampled_from([SFTMethod(SFT()).memory, DPO_MEMORY]),
    st.integers(1, 64),
    st.integers(1, 8),
    st.integers(1, 64),
    st.integers(8, 10**6),
)
def test_any_plan_has_an_estimate_that_adds_up(
    adapter: Any, strategy: Any, method: Any, nodes: int, processes: int, micro_batch_size: int, length: int
) -> None:
    parallelism = Parallelism(nodes=nodes, processes_per_node=processes, strategy=strategy)
    plan = plan_of(Adapter(type=adapter), parallelism, micro_batch_size, length, method)
    memory = estimate(QWEN_8B, plan, GIB)
    parts = (memory.weights, memory.adapter, memory.gradients, memory.optimizer, memory.activations)
    assert memory.total == sum(parts)
    assert all(part >= 0 for part in parts)
    alone = estimate(QWEN_8B, replace(plan, processes=1, sharded=False), GIB)
    if strategy == "FSDP":
        assert memory.gradients <= alone.gradients
