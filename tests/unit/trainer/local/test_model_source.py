"""On a laptop an adapter's folder is a model: upon the base that its config names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource, StorageConfig
from finetune_trainer.local.model_source import model_source
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.open_storage import open_storage

STORAGE = open_storage(StorageConfig(region="us-east-1", local_folders=True))


def folder(path: Path, name: str, content: object) -> str:
    path.mkdir(exist_ok=True)
    (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path.as_uri()


def test_a_whole_model_is_itself(tmp_path: Path) -> None:
    uri = folder(tmp_path / "model", "config.json", {})
    folder(tmp_path / "model", "adapter_config.json", {"base_model_name_or_path": "org/base"})
    assert model_source(uri, STORAGE) == ModelSource(uri=uri)


@pytest.mark.parametrize(
    ("named", "base"),
    [
        ({"base_model_name_or_path": "org/base"}, "hf://org/base"),
        ({"base_model_name_or_path": "org/base", "revision": "v1"}, "hf://org/base@v1"),
        ({"base_model_name_or_path": "org/base", "revision": None}, "hf://org/base"),
        ({"base_model_name_or_path": "s3://models/base"}, "s3://models/base"),
        ({"base_model_name_or_path": "/models/base"}, "file:///models/base"),
    ],
)
def test_an_adapter_names_its_base(tmp_path: Path, named: dict[str, object], base: str) -> None:
    uri = folder(tmp_path / "adapter", "adapter_config.json", named)
    assert model_source(uri, STORAGE) == ModelSource(uri=base, adapter_uri=uri)


@pytest.mark.parametrize(
    "config", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": "../up"}, "[]", "{", "[" * 100_000]
)
def test_one_that_does_not_tell_it_is_refused(tmp_path: Path, config: object) -> None:
    uri = folder(tmp_path / "adapter", "adapter_config.json", config)
    with pytest.raises(DiagnosedError) as error:
        model_source(uri, STORAGE)
    assert error.value.failure.reason is Reason.MODEL_INVALID
    assert uri in error.value.failure.message
