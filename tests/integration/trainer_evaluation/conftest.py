from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.trainer_evaluation.buckets import Bucket, bucket_in_real_s3
from tests.integration.trainer_evaluation.serving.served import Hub, Server, serving
from tests.integration.trainer_evaluation.tiny_models import PlainGeneration, save_adapter, save_model


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    with bucket_in_real_s3("evaluation") as bucket:
        yield bucket


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


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watched = Hub(listener)
        threading.Thread(target=watched.watch, daemon=True).start()
        yield watched


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tuned: Path, hub: Hub) -> Iterator[Server]:
    with serving(tuned, tmp_path_factory.mktemp("serve"), hub) as running:
        yield running
