from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.evaluation.benchmarks import BENCHMARK_TASKS
from finetune_api.sources import parse_s3
from finetune_trainer.benchmarks.mirroring import known_task, mirror_benchmark
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.benchmarks.copies import write_copy
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import save_adapter, save_long_model


@pytest.fixture(scope="session")
def long_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_long_model(tmp_path_factory.mktemp("long-base"), seed=4)


@pytest.fixture(scope="session")
def long_base_uri(bucket: Bucket, long_base: Path) -> str:
    return bucket.put_folder("models/long-base", long_base)


@pytest.fixture(scope="session")
def long_adapter_uri(bucket: Bucket, long_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    adapter = save_adapter(tmp_path_factory.mktemp("long-adapter"), long_base, seed=5)
    return bucket.put_folder("models/long-adapter", adapter)


@pytest.fixture(scope="session")
def mirror(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With every benchmark, made of the copies with two rows."""
    uri = bucket.uri("mirror/hf")
    for name in BENCHMARK_TASKS:
        task = known_task(name)
        copy = write_copy(tmp_path_factory.mktemp(name), task)
        mirror_benchmark(task, Storage(bucket.storage), parse_s3(uri), copy, None)
    return uri
