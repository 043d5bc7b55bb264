"""Attention over packed rows computes what a mask over all pairs of tokens does, or leaves the architecture alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finetune_trainer.model.kernels.packed_attention import (
    NAME,
    attention_over_packed_rows,
    computes_packed,
    packed_attention,
)

LENGTHS = [5, 17, 9, 1]
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 7},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"sliding_window": 5, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "afmoe": {"sliding_window": 4, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "num_dense_layers": 1},
    "stablelm": {},  # tells its attention the positions alone
}


def small_config(kind: str, **settings: Any) -> Any:
    """Two layers, two queries for each key and value."""
    return AutoConfig.for_model(
        kind,
        vocab_size=100,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        **settings,
    )


def small_model(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def some_examples(lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 100, (length,), generator=generator).tolist() for length in lengths]


def packed_batch(examples: list[list[int]]) -> dict[str, Any]:
    """One row, as TRL's trainer gives it to the model."""
    row = {"input_ids": [token for example in examples for token in example], "seq_lengths": list(map(len, examples))}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True).torch_call([row])
    return {name: value for name, value in batch.items() if name != "labels"}


def computed(model: Any, batches: list[dict[str, Any]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of all tokens, and the gradients of all weights by the sum of their squares."""
    model.zero_grad()
    logits = torch.cat([model(**batch, use_cache=False).logits[0] for batch in batches])
    logits.square().sum().backward()
    weights = model.named_parameters()
    return logits.detach(), {name: weight.grad.clone() for name, weight in weights if weight.grad is not None}


@pytest.mark.parametrize("kind", list(MODELS))
def test_packed_examples_are_computed_as_each_is_by_itself(kind: str) -> None:
    model, examples = small_model(small_config(kind, **MODELS[kind])), some_examples(LENGTHS)
    alone, its_gradients = computed(model, [{"input_ids": torch.tensor([example])} for example in examples])
    with attention_over_packed_rows(model):
        assert model.config._attn_implementation == NAME
        packed, gradients = computed(model, [packed_batch(examples)])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    assert gradients.keys() == its_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, its_gradients[name], rtol=1e-4, atol=1e-4, msg=name)


def test_of_float32_weights_under_autocast_it_computes_in_bfloat16() -> None:
    model, batch = small_model(small_config("llama")), packed_batch(some_examples(LENGTHS))
    seen = []
    with attention_over_packed_rows(model), torch.autocast("cpu", torch.bfloat16):
        output = model.model.layers[0].self_attn.o_proj
        output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
        model(**batch, use_cache=False)
    assert seen == [torch.bfloat16]


def test_afterwards_a_model_has_its_own_attention_again() -> None:
    model, batch = small_model(small_config("llama")), packed_batch(some_examples([9]))
    before = model.config._attn_implementation
    with pytest.raises(KeyboardInterrupt), attention_over_packed_rows(model):
        raise KeyboardInterrupt
    assert model.config._attn_implementation == before
    model.generate(batch["input_ids"], max_new_tokens=2, do_sample=False)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gemma2", {"attn_logit_softcapping": 50.0}),
        ("gpt_oss", {"num_local_experts": 4}),
        ("llama", {"attention_dropout": 0.1}),
        ("llama4_text", {"attention_chunk_size": 8}),
        ("bloom", {}),
    ],
    ids=["capped scores", "sinks", "dropout", "chunks", "ALiBi"],
)
def test_an_architecture_that_it_can_not_compute_keeps_its_own(kind: str, settings: dict[str, Any]) -> None:
    config = small_config(kind, **settings)
    assert not computes_packed(config)
    model = torch.nn.Module()
    model.config = config  # type: ignore[assignment]
    before = config._attn_implementation
    with attention_over_packed_rows(model):
        assert config._attn_implementation == before


def test_rows_that_do_not_say_where_their_examples_begin_are_never_computed() -> None:
    rows = torch.zeros(1, 4, 8, 16)
    with pytest.raises(NotImplementedError, match="needs cu_seq_lens_q"):
        packed_attention(torch.nn.Module(), rows, rows, rows, None)


def test_padded_rows_are_never_computed() -> None:
    model, examples = small_model(small_config("llama")), some_examples([9, 9])
    with attention_over_packed_rows(model), pytest.raises(NotImplementedError, match="several rows"):
        model(input_ids=torch.tensor(examples), use_cache=False)


@pytest.mark.parametrize("change", [{"is_causal": False}, {"softcap": 30.0}, {"s_aux": torch.ones(4)}], ids=str)
def test_what_it_does_not_compute_it_refuses(change: dict[str, Any]) -> None:
    model, batch = small_model(small_config("llama")), packed_batch(some_examples(LENGTHS))
    with attention_over_packed_rows(model), pytest.raises(NotImplementedError):
        model(**batch, use_cache=False, **change)
