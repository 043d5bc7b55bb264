from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.pod_contracts.run import FetchRun, ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.serving.fetch import SCRATCH, fetch
from finetune_trainer.storage import commits
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import CHAT_TEMPLATE

# Loads, but transformers refuses to save it: a temperature without do_sample. Many published models have the like.
GENERATION_CONFIG = {"do_sample": False, "temperature": 0.9, "repetition_penalty": 1.1}


def make_run(bucket: Bucket, model: ModelSource) -> FetchRun:
    return FetchRun(storage=bucket.storage, model=model, name="router")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=torch.arange(3, 40).unsqueeze(0)).logits
    return result


def test_an_adapter_is_merged_into_its_base(bucket: Bucket, base: Path, adapter: Path, tmp_path: Path) -> None:
    base_uri = bucket.put_folder("fetch/base", base)
    bucket.put("fetch/base/generation_config.json", json.dumps(GENERATION_CONFIG).encode())
    storage, folder = Storage(bucket.storage), parse_s3(bucket.uri("fetch/result"))
    files = commits.upload_files(storage, folder, {file.name: file for file in adapter.iterdir()})
    manifest = Manifest(step=5, claim=1, attempt=1, created=datetime.now(UTC), files=files)
    committed = commits.commit(storage, folder, manifest)

    fetch(make_run(bucket, ModelSource(uri=base_uri, adapter_uri=folder.uri, digest=committed.digest)), models=tmp_path)

    assert [entry.name for entry in tmp_path.iterdir()] == ["router"]
    served = tmp_path / "router"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    merged = AutoModelForCausalLM.from_pretrained(served)
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base)), atol=0.1)
    assert sorted(file.name for file in served.glob("*.safetensors")) == ["model.safetensors"]
    assert not (served / "adapter_config.json").exists()
    assert AutoTokenizer.from_pretrained(served).chat_template == CHAT_TEMPLATE
    assert json.loads((served / "generation_config.json").read_bytes()) == GENERATION_CONFIG


def test_a_whole_model_comes_as_it_is_in_place_of_an_older_one(bucket: Bucket, tuned: Path, tmp_path: Path) -> None:
    for left_over in (tmp_path / "router" / "old.safetensors", tmp_path / SCRATCH / "base" / "killed.safetensors"):
        left_over.parent.mkdir(parents=True)
        left_over.touch()
    bucket.put_folder("fetch/whole", tuned)
    bucket.put("fetch/whole/pytorch_model.bin", b"a pickle is never fetched")

    fetch(make_run(bucket, ModelSource(uri=bucket.uri("fetch/whole"))), models=tmp_path)

    fetched = {file.name: file.read_bytes() for file in (tmp_path / "router").iterdir()}
    assert fetched == {file.name: file.read_bytes() for file in tuned.iterdir()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["router"]


def test_a_model_that_is_not_there_leaves_what_is_served_alone(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    with pytest.raises(DiagnosedError) as caught:
        fetch(make_run(bucket, ModelSource(uri=bucket.uri("fetch/nothing"))), models=tmp_path)
    assert caught.value.failure.reason is Reason.MODEL_NOT_FOUND
    assert [entry.name for entry in tmp_path.iterdir()] == ["router"]
