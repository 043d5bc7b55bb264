"""Preflight says which layers of a model an adapter trains, and refuses those that it can't."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Freeze, Full, LoRA, QLoRA
from finetune_trainer.model.adapters import add_lora
from finetune_trainer.model.loading import LocalModel, load_model
from tests.integration.trainer.preflight.tiny_kinds import check, checked_model, refusal, save

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
DEEPSEEK = {
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    **EXPERTS,
}
TRAINED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("llama", {}, False),
    "tied": ("llama", {"tie_word_embeddings": True}, False),
    "qwen3": ("qwen3", {"head_dim": 16}, False),
    "bloom": ("bloom", {}, False),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "qwen3_moe": ("qwen3_moe", {"num_experts": 4, **EXPERTS}, True),
    "mamba2": (
        "mamba2",
        {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1, "num_attention_heads": None},
        False,
    ),
    "qwen2_moe": ("qwen2_moe", {"num_experts": 4, "shared_expert_intermediate_size": 32, **EXPERTS}, True),
    "gpt_oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}, True),
    "llama4_text": (
        "llama4_text",
        {"num_local_experts": 4, "num_experts_per_tok": 1, "head_dim": 16, "intermediate_size_mlp": 64},
        True,
    ),
    "qwen3_next": (
        "qwen3_next",
        {"num_experts": 4, "shared_expert_intermediate_size": 32, "head_dim": 16, **EXPERTS, **LINEAR_ATTENTION},
        True,
    ),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK, True),
}
"""Kind, settings, and whether it has experts."""


@pytest.mark.parametrize(("kind", "settings", "experts"), TRAINED.values(), ids=TRAINED)
def test_the_defaults_train_every_kind_and_no_router(
    tmp_path: Path, kind: str, settings: dict[str, Any], experts: bool
) -> None:
    folder = save(tmp_path / "model", kind, **settings)
    checked = checked_model(folder, tmp_path / "scratch", adapter=Adapter(lora=LoRA(rank=4)))
    whole = load_model(LocalModel(folder), torch.float32)
    assert checked.shapes == {name: tuple(weight.shape) for name, weight in whole.named_parameters()}
    tuned = add_lora(whole, Adapter(lora=LoRA(rank=4)))
    trained = {name: tuple(weight.shape) for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert checked.adapter_shapes == trained, "what the memory is estimated by"
    assert bool(checked.warnings) is (kind == "mamba2"), "whose kernels pass an adapter on out_proj by"
    assert any(name in str(trained) for name in ("q_proj", "q_a_proj", "query_key_value", "in_proj"))
    assert any(".experts." in name for name in trained) is experts
    assert any("shared_expert" in name for name in trained) is (
        kind in ("qwen2_moe", "qwen3_next", "deepseek_v3", "llama4_text")
    )
    assert not [
        name
        for name in trained
        if ".gate." in name or ".router." in name or "shared_expert_gate" in name or "lm_head" in name
    ]
    tokens = torch.randint(3, 60, (2, 9))
    tuned(input_ids=tokens, labels=tokens).loss.backward()
    assert all(weight.grad is not None for weight in tuned.parameters() if weight.requires_grad)

    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.05)
        evaluated = tuned.eval()(input_ids=tokens).logits
        tuned.save_pretrained(tmp_path / "adapter")
        merged = load_model(LocalModel(folder, tmp_path / "adapter"), torch.float32).merge_and_unload()
        served = merged.eval()(input_ids=tokens).logits
        base = load_model(LocalModel(folder), torch.float32).eval()(input_ids=tokens).logits
    torch.testing.assert_close(served, evaluated, rtol=1e-3, atol=1e-3)
    assert (evaluated - base).abs().max() > 0.1


def test_what_all_linear_leaves_out_is_reported(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "qwen3_next", **TRAINED["qwen3_next"][1])
    in_4_bits = checked_model(folder, tmp_path / "scratch", adapter=Adapter(type="QLoRA", qlora=QLoRA()))
    (told,) = in_4_bits.warnings
    assert told.endswith(
        "; not on mlp.shared_expert (down_proj, gate_proj, up_proj). peft can't adapt these in this model in 4 bits; "
        "adapter.type LoRA can."
    )
    chosen = Adapter(type="QLoRA", qlora=QLoRA(target_modules=["q_proj"]))
    assert checked_model(folder, tmp_path / "scratch2", adapter=chosen).warnings == []


@pytest.mark.parametrize(
    ("target", "on"),
    [
        ("gate_up_proj", {"mlp.experts"}),
        ("experts.down_proj", {"mlp.experts"}),
        ("model.layers.1.mlp.experts.down_proj", {"mlp.experts"}),
    ],
)
def test_stacked_experts_are_adapted_by_the_names_of_their_weights(tmp_path: Path, target: str, on: set[str]) -> None:
    folder = save(tmp_path / "model", "gpt_oss", **TRAINED["gpt_oss"][1])
    checked = checked_model(folder, tmp_path / "scratch", adapter=Adapter(lora=LoRA(target_modules=[target])))
    found = {re.sub(r".*?layers\.\d+\.|\.lora_.*", "", name) for name in checked.adapter_shapes}
    assert found == on
    with_dropout = Adapter(lora=LoRA(dropout=0.1, target_modules=[target]))
    reason, message = refusal(folder, tmp_path / "refused", adapter=with_dropout)
    assert reason is Reason.INVALID_SPEC
    assert message.startswith("adapter.lora.dropout is 0.1")
    reason, message = refusal(folder, tmp_path / "named", adapter=Adapter(lora=LoRA(target_modules=["down_porj"])))
    assert "has no module 'down_porj'. Did you mean down_proj? It has: down_proj, gate_up_proj" in message


def test_dropout_where_there_can_be_none_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "mixtral", num_local_experts=4, num_experts_per_tok=2)
    for targets in (["all-linear"], ["q_proj", "w1", "w2", "w3"], ["q_proj", "gate"]):
        adapter = Adapter(lora=LoRA(dropout=0.1, target_modules=targets))
        reason, message = refusal(folder, tmp_path / "refused", adapter=adapter)
        assert reason is Reason.INVALID_SPEC
        assert message.startswith("adapter.lora.dropout is 0.1")
        check(folder, tmp_path / "zero", adapter=Adapter(lora=LoRA(dropout=0.0, target_modules=targets)))
    check(folder, tmp_path / "attention", adapter=Adapter(lora=LoRA(dropout=0.1, target_modules=["q_proj"])))


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["q_proj", "v_porj"], "the model has no module 'v_porj'. Did you mean v_proj? It has: down_proj, gate_proj"),
        (["query_key_value"], "the model has no module 'query_key_value'"),
        (["q_proj", "all-linear"], "the model has no module 'all-linear'"),
        (["q_proj", "self_attn"], "'self_attn' is a LlamaAttention, which LoRA can't adapt. It has: down_proj"),
        (["q_proj", "norm"], "'norm' is a LlamaRMSNorm, which LoRA can't adapt"),
    ],
)
def test_targets_that_the_model_does_not_have_are_named(tmp_path: Path, targets: list[str], words: str) -> None:
    folder = save(tmp_path / "model")
    reason, message = refusal(folder, tmp_path / "scratch", adapter=Adapter(lora=LoRA(target_modules=targets)))
    assert reason is Reason.INVALID_SPEC
    assert message.startswith("adapter.lora.targetModules: ")
    assert words in message


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head", "model.embed_tokens"])
def test_a_target_whose_weight_another_module_shares_is_refused(tmp_path: Path, target: str) -> None:
    adapter = Adapter(lora=LoRA(target_modules=["q_proj", target]))
    tied = save(tmp_path / "tied", tie_word_embeddings=True)
    reason, message = refusal(tied, tmp_path / "scratch", adapter=adapter)
    assert reason is Reason.INVALID_SPEC
    assert target in message
    assert "can't be merged" in message
    check(save(tmp_path / "untied", tie_word_embeddings=False), tmp_path / "scratch2", adapter=adapter)


def test_a_layer_that_is_used_twice_can_be_adapted(tmp_path: Path) -> None:
    """As Zamba's: the module itself is shared, so what adapts it does so everywhere, and merges exactly."""
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path / "model"))
    model.model.layers[1] = model.model.layers[0]
    assert add_lora(model, Adapter(lora=LoRA(target_modules=["q_proj"])))


def adapter_upon(folder: Path, base: Path, **settings: Any) -> Path:
    config = LoraConfig(r=4, task_type="CAUSAL_LM", **{"target_modules": ["q_proj"], **settings})
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("settings", [{"target_modules": ["q_proj", "embed_tokens"]}, {"modules_to_save": ["lm_head"]}])
def test_so_is_an_adapter_that_comes_with_the_model(tmp_path: Path, settings: dict[str, Any]) -> None:
    tied = save(tmp_path / "tied", tie_word_embeddings=True)
    inherited = adapter_upon(tmp_path / "adapter", tied, **settings)
    reason, message = refusal(tied, tmp_path / "scratch", inherited)
    assert reason is Reason.MODEL_INVALID
    assert inherited.as_uri() in message
    check(tied, tmp_path / "scratch2", adapter_upon(tmp_path / "good", tied))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base, other = save(tmp_path / "base"), save(tmp_path / "other", hidden_size=32, num_hidden_layers=3)
    inherited = adapter_upon(tmp_path / "adapter", base)
    reason, message = refusal(other, tmp_path / "scratch", inherited)
    assert reason is Reason.MODEL_INVALID
    assert "adapter" in message


def test_more_layers_than_there_are_can_not_be_frozen(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", tie_word_embeddings=True)
    check(folder, tmp_path / "good", adapter=Adapter(type="Full", full=Full(freeze=Freeze(layers=2, embeddings=True))))
    reason, message = refusal(
        folder, tmp_path / "refused", adapter=Adapter(type="Full", full=Full(freeze=Freeze(layers=3, embeddings=False)))
    )
    assert (reason, "the model has 2 layers" in message) == (Reason.INVALID_SPEC, True)
