"""The demo's smaller model is the base model without its later layers."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from safetensors.torch import load

from e2e.demo.scenario import BUCKET, MODEL_KEY, QUICKSTART, SMALLER_MODEL_KEY
from e2e.demo.smaller_model import LAYERS, smaller_model

BASE = QUICKSTART / "base-model"
CLASS = Path(__file__).parents[3] / "examples" / "capabilities" / "class-sizes.yaml"


def test_it_has_the_tensors_of_the_first_layer_as_they_are() -> None:
    whole, smaller = load((BASE / "model.safetensors").read_bytes()), load(smaller_model(BASE)["model.safetensors"])
    later = {name for name in whole if any(f".layers.{number}." in name for number in range(LAYERS, 4))}
    assert later
    assert set(smaller) == set(whole) - later
    assert all(smaller[name].equal(whole[name]) for name in smaller)


def test_its_files_are_those_of_a_model_with_so_many_layers() -> None:
    files = smaller_model(BASE)
    assert json.loads(files["config.json"])["num_hidden_layers"] == LAYERS
    assert files["tokenizer.json"] == (BASE / "tokenizer.json").read_bytes()
    assert set(files) == {file.name for file in BASE.iterdir() if file.suffix in (".json", ".safetensors")}


def test_the_class_of_the_example_lists_both_models_with_their_numbers_of_parameters() -> None:
    listed = {
        model["base"]["uri"]: model["base"]["parameters"]
        for model in yaml.safe_load(CLASS.read_text())["spec"]["models"]
    }
    weights = {
        SMALLER_MODEL_KEY: smaller_model(BASE)["model.safetensors"],
        MODEL_KEY: (BASE / "model.safetensors").read_bytes(),
    }
    counts = {
        f"s3://{BUCKET}/{key}": sum(one.numel() for one in load(found).values()) for key, found in weights.items()
    }
    assert listed == counts
