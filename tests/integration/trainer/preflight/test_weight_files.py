"""Preflight tells from the headers alone whether the files are the whole model, and nothing but it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_trainer.model.loading import LocalModel, fetch_model, inspect_model, load_model
from finetune_trainer.model.weight_headers import INDEX_NAME, LONGEST_INDEX_BYTES, files_to_load
from finetune_trainer.preflight.model_checks import check_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.open_storage import open_storage
from tests.integration.trainer.preflight.tiny_kinds import STORAGE, check, preflight_run, refusal, save


def test_weights_that_the_config_knows_nothing_of_are_reported(tmp_path: Path) -> None:
    """A config of half the layers trains half the model."""
    folder = save(tmp_path / "model")
    run = preflight_run(folder)
    assert check_model(run, inspect_model(run.model, open_storage(STORAGE), tmp_path / "whole")).warnings == []
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    (told,) = check_model(run, inspect_model(run.model, open_storage(STORAGE), tmp_path / "half")).warnings
    assert "have weights that its config.json does not describe" in told
    assert "model.layers.1.input_layernorm.weight" in told


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


def many_dimensions(folder: Path) -> None:
    """Their product would take the square of their number, of which a header has room for millions."""
    edit_header(shards(folder)[1], lambda weights: weights[0].update(shape=[3] * 100_000))


def long_index(folder: Path) -> None:
    with (folder / INDEX_NAME).open("a") as file:
        file.write(" " * LONGEST_INDEX_BYTES)


def long_name(folder: Path) -> None:
    file = folder / INDEX_NAME
    weights = json.loads(file.read_bytes())["weight_map"]
    edit(file, weight_map=weights | {"w" * 100_000: shards(folder)[0].name})


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
        (nested_config, "config.json is not JSON"),
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
        (many_dimensions, "has 100000 dimensions; the maximum is 64"),
        (long_index, f"bytes; the maximum is {LONGEST_INDEX_BYTES}"),
        (long_name, f"says that {'w' * 200} is in model-00001-of"),
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


def test_an_index_of_many_files_is_read_in_one_pass(tmp_path: Path) -> None:
    """Files times weights would be a billion comparisons: half a minute, and hours for the most that there could be."""
    names = {f"w{number}": f"{number}.safetensors" for number in range(30_000)}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": names}))
    before = time.process_time()
    found = files_to_load(tmp_path, [INDEX_NAME, *names.values()], "uri")
    assert found == {file: frozenset({weight}) for weight, file in names.items()}
    assert time.process_time() - before < 5


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


def test_no_weight_is_fetched(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    check(folder, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
