from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from e2e.s3 import REGION, local_s3
from finetune_api.run import StorageConfig
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import PlainGeneration, save_adapter, save_model


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A bucket in a real S3, whose credentials are in the environment as in a Pod's."""
    with local_s3() as s3, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
        s3.create_bucket("evaluation")
        storage = StorageConfig(endpoint=s3.endpoint, region=REGION, path_style=True)
        yield Bucket(storage, s3.client(), "evaluation")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"), seed=1)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tuned"), seed=2)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), base, seed=3)


@pytest.fixture(scope="session")
def plain_tuned(tuned: Path) -> PlainGeneration:
    return PlainGeneration(AutoModelForCausalLM.from_pretrained(tuned), AutoTokenizer.from_pretrained(tuned))
