"""Preflight compares the spec with the model that its files describe, and says what does not fit, before any weight is
fetched. The models are tiny, of many kinds, and lie in folders of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune_api.auto import length_bound
from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Dataset, Freeze, Full, Hyperparameters, LoRA, Method, TrainingData
from finetune_api.run import ModelSource, PreflightRun, StorageConfig
from finetune_api.sources import ON_A_LAPTOP
from finetune_trainer.model.adapters import add_lora
from finetune_trainer.model.loading import InspectedModel, LocalModel, fetch_model, inspect_model, load_model
from finetune_trainer.preflight.model_checks import check_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.local_storage import open_storage
from tests.integration.trainer.runs import JOB
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer

STORAGE = StorageConfig(region="us-east-1", local_folders=True)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "pad_token_id": None,
}
NO_DATA = Dataset(training=TrainingData.model_validate({"uri": "file:///nowhere.jsonl"}, context=ON_A_LAPTOP))
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
BLOOM: dict[str, Any] = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "bos_token_id": None, "pad_token_id": None}


def save(folder: Path, kind: str = "llama", tokenizer: Any = None, **settings: Any) -> Path:
    tokenizer = tokenizer or make_tokenizer()
    sizes = BLOOM if kind == "bloom" else SIZES
    wanted = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **sizes, **settings}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**wanted)).save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    return folder


def preflight_run(folder: Path, inherited: Path | None = None, **changes: Any) -> PreflightRun:
    settings: dict[str, Any] = {
        "job": JOB,
        "storage": STORAGE,
        "output_uri": "file:///nowhere",
        "model": ModelSource(uri=folder.as_uri(), adapter_uri=None if inherited is None else inherited.as_uri()),
        "method": Method(),
        "dataset": NO_DATA,
        "seed": 17,
    }
    return PreflightRun(**settings | changes)


def check(folder: Path, scratch: Path, inherited: Path | None = None, **changes: Any) -> InspectedModel:
    run = preflight_run(folder, inherited, **changes)
    model = inspect_model(run.model, open_storage(STORAGE), scratch)
    check_model(run, model)
    return model


def refusal(folder: Path, scratch: Path, inherited: Path | None = None, **changes: Any) -> tuple[Reason, str]:
    with pytest.raises(DiagnosedError) as error:
        check(folder, scratch, inherited, **changes)
    assert not error.value.failure.retryable
    return error.value.failure.reason, error.value.failure.message


def test_weights_that_the_config_knows_nothing_of_are_told(tmp_path: Path) -> None:
    """A config of half the layers trains half the model."""
    folder = save(tmp_path / "model")
    run = preflight_run(folder)
    assert check_model(run, inspect_model(run.model, open_storage(STORAGE), tmp_path / "whole")) == []
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    (told,) = check_model(run, inspect_model(run.model, open_storage(STORAGE), tmp_path / "half"))
    assert "have weights that are not used" in told
    assert "model.layers.1.input_layernorm.weight" in told


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
    "qwen2_moe": ("qwen2_moe", {"num_experts": 4, "shared_expert_intermediate_size": 32, **EXPERTS}, False),
    "qwen3_next": (
        "qwen3_next",
        {"num_experts": 4, "shared_expert_intermediate_size": 32, "head_dim": 16, **EXPERTS, **LINEAR_ATTENTION},
        True,
    ),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK, True),
}
"""Kind, settings, and whether peft adapts its experts."""


@pytest.mark.parametrize(("kind", "settings", "experts"), TRAINED.values(), ids=TRAINED)
def test_the_defaults_train_every_kind_and_no_router(
    tmp_path: Path, kind: str, settings: dict[str, Any], experts: bool
) -> None:
    folder = save(tmp_path / "model", kind, **settings)
    check(folder, tmp_path / "scratch")
    tuned = add_lora(load_model(LocalModel(folder), torch.float32), Adapter(lora=LoRA(rank=4)))
    trained = [name for name, weight in tuned.named_parameters() if weight.requires_grad]
    assert any(name in str(trained) for name in ("q_proj", "q_a_proj", "query_key_value", "in_proj"))
    assert any(".experts." in name for name in trained) is experts
    assert any("shared_expert" in name for name in trained) is (kind in ("qwen2_moe", "qwen3_next", "deepseek_v3"))
    assert not [name for name in trained if ".gate." in name or "shared_expert_gate" in name or "lm_head" in name]
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


def test_what_all_linear_leaves_out_is_told(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "qwen2_moe", num_experts=4, shared_expert_intermediate_size=32, **EXPERTS)
    run = preflight_run(folder)
    (told,) = check_model(run, inspect_model(run.model, open_storage(STORAGE), tmp_path / "scratch"))
    assert told.endswith("; not on mlp.experts (down_proj, gate_up_proj). peft can't adapt these in this model.")
    chosen = preflight_run(folder, adapter=Adapter(lora=LoRA(target_modules=["q_proj"])))
    assert check_model(chosen, inspect_model(chosen.model, open_storage(STORAGE), tmp_path / "scratch2")) == []


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


def with_pad(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})


def with_turns(tokenizer: Any) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace("im_start", "user_turn")
    tokenizer.add_tokens(["<|user_turn|>"], special_tokens=True)


def with_words(tokenizer: Any) -> None:
    tokenizer.add_tokens(["refund"])


def with_unused(tokenizer: Any) -> None:
    """As Gemma 3's smallest: a token for images, which a language model never gets."""
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)


@pytest.mark.parametrize(
    ("change", "shown"), [(with_pad, "'[PAD]'"), (with_turns, "'<|user_turn|>'"), (with_words, "'refund'")]
)
def test_tokens_beyond_the_embedding_are_refused(tmp_path: Path, change: Callable[[Any], None], shown: str) -> None:
    tokenizer = make_tokenizer()
    rows = len(tokenizer)
    change(tokenizer)
    folder = save(tmp_path / "model", tokenizer=tokenizer, vocab_size=rows)
    reason, message = refusal(folder, tmp_path / "scratch")
    assert reason is Reason.MODEL_INVALID
    assert f"{shown} ({rows})" in message
    assert f"only the tokens 0 to {rows - 1}" in message


def test_a_token_that_no_text_has_may_lie_beyond(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    rows = len(tokenizer)
    with_unused(tokenizer)
    check(save(tmp_path / "model", tokenizer=tokenizer, vocab_size=rows), tmp_path / "scratch")


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def without_shard(folder: Path) -> None:
    shards(folder)[1].unlink()


def without_weights(folder: Path) -> None:
    """A shard that is another one's copy: all files are there, and not all weights."""
    shards(folder)[1].write_bytes(shards(folder)[0].read_bytes())


def wider(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=256)


def deeper(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3)


def climbing(folder: Path) -> None:
    edit_index(folder, "../../../../etc/passwd")


def absolute(folder: Path) -> None:
    edit_index(folder, "/etc/ssl/model.safetensors")


def below(folder: Path) -> None:
    edit_index(folder, "deep/model.safetensors")


def nested_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ' + "[" * 200_000 + "]" * 200_000 + "}")


def nested_header(folder: Path) -> None:
    text = ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}").encode()
    shards(folder)[0].write_bytes(len(text).to_bytes(8, "little") + text)


def nested_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}")


def huge_header(folder: Path) -> None:
    shards(folder)[0].write_bytes((90 * 2**20).to_bytes(8, "little") + b"{}")


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def moved(folder: Path, name: str = "model.norm.weight") -> tuple[Path, Path]:
    """Copies a weight to a file where the index does not have it. Answers its own file, and the other one."""
    owner = next(file for file in shards(folder) if name in load_file(file))
    other = next(file for file in shards(folder) if file != owner)
    weight = load_file(owner)[name]
    rewrite(other, lambda weights: weights.update({name: weight + 1}))
    return owner, other


def twice(folder: Path) -> None:
    moved(folder)


def elsewhere(folder: Path) -> None:
    """The index says where it was."""
    owner, _ = moved(folder)
    rewrite(owner, lambda weights: weights.pop("model.norm.weight"))


def without_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def cut(folder: Path) -> None:
    with shards(folder)[1].open("r+b") as file:
        file.truncate(shards(folder)[1].stat().st_size - 100)


def cut_in_header(folder: Path) -> None:
    with shards(folder)[1].open("r+b") as file:
        file.truncate(40)


def empty(folder: Path) -> None:
    shards(folder)[1].write_bytes(b"")


def longer(folder: Path) -> None:
    with shards(folder)[1].open("ab") as file:
        file.write(bytes(100))


def edit_header(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """`change` gets the weights as the header has them, in the order of their bytes."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(sorted((item for item in header.values() if "shape" in item), key=lambda item: item["data_offsets"]))
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def overlapping(folder: Path) -> None:
    def overlap(weights: list[dict[str, Any]]) -> None:
        first, last = weights[1]["data_offsets"]
        weights[1]["data_offsets"] = [first - 4, last - 4]

    edit_header(shards(folder)[1], overlap)


def gap(folder: Path) -> None:
    def leave(weights: list[dict[str, Any]]) -> None:
        first, last = weights[-1]["data_offsets"]
        weights[-1]["data_offsets"] = [first + 4, last + 4]

    edit_header(shards(folder)[1], leave)


def other_shape(folder: Path) -> None:
    edit_header(shards(folder)[1], lambda weights: weights[0].update(shape=[3, 5]))


def other_weights(folder: Path) -> None:
    edit(folder / "config.json", transformers_weights="../../other/model.safetensors")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | changes))


def edit_index(folder: Path, name: str) -> None:
    file = folder / "model.safetensors.index.json"
    weights = json.loads(file.read_bytes())["weight_map"]
    edit(file, weight_map=weights | {next(iter(weights)): name})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_shard, "is not complete: model.safetensors.index.json names model-00002-of-"),
        (without_weights, "(and 4 more) is in model-00002-of-"),
        (wider, "are not those of its config.json"),
        (deeper, "lack weights that the model has: model.layers.2."),
        (climbing, "names '../../../../etc/passwd', which is not a safetensors file of the model's own folder"),
        (absolute, "names '/etc/ssl/model.safetensors', which"),
        (below, "names 'deep/model.safetensors', which"),
        (nested_index, "model.safetensors.index.json can't be read"),
        (nested_header, "is not a safetensors file"),
        (nested_config, "config.json is no JSON"),
        (huge_header, "is not a safetensors file"),
        (other_weights, "transformers_weights in config.json is '../../other/model.safetensors'"),
        (twice, "has model.norm.weight twice: in model-0000"),
        (elsewhere, "model.safetensors.index.json says that model.norm.weight is in model-0000"),
        (without_index, "has neither model.safetensors nor model.safetensors.index.json"),
        (cut, "is cut: it has"),
        (cut_in_header, "is cut: it has 40 bytes, and its header alone has"),
        (empty, "is not a safetensors file"),
        (longer, "and by its header only"),
        (overlapping, "overlap with another weight's"),
        (gap, "leave a gap"),
        (other_shape, "bytes, which its shape and type do not take"),
    ],
)
def test_files_that_are_not_the_whole_model_or_lead_elsewhere_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = save(tmp_path / "model")
    assert len(shards(folder)) > 2
    check(folder, tmp_path / "good")
    spoil(folder)
    reason, message = refusal(folder, tmp_path / "refused")
    assert reason is Reason.MODEL_INVALID
    assert words in message


def wrong_total(folder: Path) -> None:
    edit(folder / "model.safetensors.index.json", metadata={"total_size": 1})


def named_twice(folder: Path) -> None:
    """JSON readers take the last one."""
    file = folder / "model.safetensors.index.json"
    file.write_text(file.read_text().replace('"weight_map": {', '"weight_map": {"model.norm.weight": "model-9.bin",'))


def leftover(folder: Path) -> None:
    """Of another save. The index does not name it, so nobody loads it."""
    (folder / "model-00009-of-00009.safetensors").write_bytes(shards(folder)[0].read_bytes()[:100])


def with_nothing(folder: Path) -> None:
    rewrite(shards(folder)[0], lambda weights: weights.update({"nothing": torch.empty(0, 4)}))


def whole_beside_shards(folder: Path) -> None:
    weights = {name: weight for file in shards(folder) for name, weight in load_file(file).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("change", [wrong_total, named_twice, leftover, with_nothing, whole_beside_shards])
def test_what_changes_nothing_of_the_weights_is_no_fault(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = save(tmp_path / "model")
    right = load_model(LocalModel(folder), torch.float32).state_dict()
    change(folder)
    model = check(folder, tmp_path / "scratch")
    assert model.status.parameters == sum(weight.numel() for weight in right.values())
    local = fetch_model(ModelSource(uri=folder.as_uri()), open_storage(STORAGE), tmp_path / "fetched")
    torch.testing.assert_close(load_model(local, torch.float32).state_dict(), right, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtype", "shown"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8"), (torch.uint8, "U8")]
)
def test_weights_in_fewer_bits_need_a_config_that_says_so(tmp_path: Path, dtype: torch.dtype, shown: str) -> None:
    """They would be cast without their scales: numbers, but not those of the model."""
    folder = save(tmp_path / "model")
    name = "model.layers.1.mlp.up_proj.weight"
    owner = next(file for file in shards(folder) if name in load_file(file))
    rewrite(owner, lambda weights: weights.update({name: (weights[name] * 100).to(dtype)}))
    reason, message = refusal(folder, tmp_path / "refused")
    assert reason is Reason.MODEL_INVALID
    assert f"stores {name} as {shown}, and its config.json has no quantization_config" in message
    edit(folder / "config.json", quantization_config={"quant_method": "fp8"})
    check(folder, tmp_path / "said")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_other_plain_types_do_not(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = save(tmp_path / "model")
    rewrite(shards(folder)[0], lambda weights: weights.update({name: weights[name].to(dtype) for name in weights}))
    check(folder, tmp_path / "scratch")


def test_masks_that_old_files_hold_are_no_weights(tmp_path: Path) -> None:
    """As GPT-NeoX's (Pythia): the causal mask as bytes, in each layer."""
    folder = save(tmp_path / "model", "gpt_neox", num_key_value_heads=None)
    mask = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
        "position_ids": torch.ones(2).long(),
    }
    rewrite(shards(folder)[0], lambda weights: weights.update(mask))
    check(folder, tmp_path / "scratch")


@pytest.mark.parametrize("spoil", [climbing, other_weights])
def test_training_opens_no_file_elsewhere_either(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Between preflight and training the folder may change."""
    folder = save(tmp_path / "model")
    spoil(folder)
    with pytest.raises(DiagnosedError) as error:
        fetch_model(ModelSource(uri=folder.as_uri()), open_storage(STORAGE), tmp_path / "fetched")
    assert error.value.failure.reason is Reason.MODEL_INVALID


def test_a_tokenizer_that_knows_no_length_is_no_fact(tmp_path: Path) -> None:
    """Bloom has no longest sequence; its tokenizer says 1e30, which no int64 holds."""
    model = check(save(tmp_path / "model", "bloom"), tmp_path / "scratch")
    assert model.status.context_length is None
    assert length_bound(None, model.status.context_length) == 8192
    assert length_bound(16384, model.status.context_length) == 16384


def test_packing_is_refused_by_the_name_of_its_field(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bloom")
    reason, message = refusal(folder, tmp_path / "scratch", hyperparameters=Hyperparameters(packing=True))
    assert reason is Reason.INVALID_SPEC
    assert message.startswith("hyperparameters.packing does not work with a BloomForCausalLM: ")


def test_no_weight_is_fetched(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    check(folder, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
