"""Tries whether a model keeps packed examples apart, instead of listing architectures.

A small model of the same kind, with random weights, computes two examples packed into one row, as TRL's collator does
it, and each by itself. Attention that uses the positions keeps them apart. ALiBi, learned positions that count from
the row's start, and layers that carry a state on (state-space, convolution, linear attention) do not, unless they know
the row's boundaries.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from finetune_trainer.model.kernels.packed_attention import attention_over_packed_rows
from finetune_trainer.process.failures import first_line

TOKENS = 64
LENGTHS = (7, 9, 8)
TOLERANCE = 1e-3
"""Of the logits' standard deviation. Rounding makes 1e-5; one token of another example, 1e-1 and more."""
MOST_PARAMETERS = 200_000_000
"""A kind that can't be made smaller than this is not tried: preflight has little memory."""
FEWEST_LAYERS = 4
"""For what layers of one kind do by turns."""
HEADS = 4  # some kinds divide them by four
# Sizes that configs have names of their own for, and small values that go together.
SMALL_SIZES = {
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "vocab_size_per_layer_input": TOKENS,
}
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def why_not_packed(config: Any) -> str | None:
    """Why examples of a language model with this config can't be packed; None when they can."""
    reasons = []
    for small in (_smaller(config), _with_few_tokens(config)):
        try:
            model = _build(small)
        except Exception as error:  # a config of any kind, made smaller, may contradict itself
            reasons.append(first_line(error))
            continue
        try:
            difference = _difference(model)
        except Exception as error:
            return f"its layers can't compute packed rows here ({first_line(error)})"
        if difference > TOLERANCE:
            return "its layers do not keep the examples of a packed row apart"
        return None
    return f"whether its layers keep packed examples apart could not be tried ({reasons[-1]})"


def _build(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        config = _with_first_layers(config, AutoModelForCausalLM.from_config(config))
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size} parameters are too many")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):  # large enough for attention to choose
                torch.nn.init.normal_(module.weight, std=module.weight.shape[-1] ** -0.5)
    return model


def _difference(model: Any) -> float:
    """The largest difference between logits of packed examples and of the same examples alone, in standard
    deviations."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    generator = torch.Generator().manual_seed(0)
    examples = [torch.randint(3, TOKENS, (length,), generator=generator).tolist() for length in LENGTHS]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    row = {"input_ids": [token for example in examples for token in example], "seq_lengths": list(LENGTHS)}

    def logits(rows: list[dict[str, Any]]) -> torch.Tensor:
        batch = collate.torch_call(rows)
        del batch["labels"]
        return model(**batch, use_cache=False).logits[0].float()

    with torch.inference_mode():
        with attention_over_packed_rows(model):  # as in training
            packed = logits([row])
        alone = [logits([{"input_ids": ids, "seq_lengths": [len(ids)]}]) for ids in examples]
    apart = torch.cat(alone)
    return float((packed - apart).abs().max() / apart.std())


def _with_few_tokens(config: Any) -> Any:
    small = copy.deepcopy(config)
    small.vocab_size = TOKENS
    for name in SPECIAL_TOKENS:
        setattr(small, name, None)
    return small


def _smaller(config: Any) -> Any:
    """The config with a small width, and one layer of each type where it names types."""
    small = _with_few_tokens(config)
    _keep_one_layer_of_each_type(small)
    for name, value in SMALL_SIZES.items():
        if isinstance(getattr(config, name, None), int):
            setattr(small, name, min(value, getattr(config, name)))
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int) or heads < HEADS:
        return small
    small.num_attention_heads = HEADS
    if getattr(config, "num_key_value_heads", None) is not None:
        small.num_key_value_heads = HEADS if config.num_key_value_heads >= heads else 1
    small.hidden_size = HEADS * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    if getattr(config, "intermediate_size", None) is not None:
        small.intermediate_size = 2 * small.hidden_size
    return small


def _with_first_layers(config: Any, model: Any) -> Any:
    """The config with the first layers alone, one of each kind among them, where it names no types."""
    layers = getattr(config, "num_hidden_layers", None)
    stack: Any = next(
        (part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == layers), []
    )
    kinds = [tuple((name, type(part)) for name, part in layer.named_modules()) for layer in stack]
    if not kinds or getattr(config, "layer_types", None) is not None:
        return config
    kept = max(FEWEST_LAYERS, 1 + max(kinds.index(kind) for kind in kinds))
    if kept >= len(kinds):
        return config
    small = copy.deepcopy(config)
    for name, value in list(vars(small).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(small, name, value[:kept])
    small.num_hidden_layers = kept
    return small


def _keep_one_layer_of_each_type(small: Any) -> None:
    types, layers = getattr(small, "layer_types", None), getattr(small, "num_hidden_layers", None)
    if not isinstance(types, list) or len(types) != layers:
        return
    kept = sorted({kind: types.index(kind) for kind in types}.values())
    for name, value in list(vars(small).items()):
        if isinstance(value, list) and len(value) == layers:  # what is said of each layer
            setattr(small, name, [value[index] for index in kept])
    small.num_hidden_layers = len(kept)
