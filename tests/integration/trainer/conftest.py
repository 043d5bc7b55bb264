from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.process import environment
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, question
from tests.integration.trainer_evaluation.buckets import Bucket, bucket_in_real_s3
from tests.integration.trainer_evaluation.tiny_models import save_model

environment.prepare()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """A file's own: two files that name a run alike would else find each other's data."""
    with bucket_in_real_s3("trainer") as bucket:
        yield bucket


@pytest.fixture(scope="module")
def storage(bucket: Bucket) -> Storage:
    return Storage(bucket.storage)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 0.1 M parameters with random weights."""
    return save_model(tmp_path_factory.mktemp("base"), seed=1)


@pytest.fixture(scope="module")
def workplace(bucket: Bucket, base: Path) -> Workplace:
    """The base model, forty examples and eight held-out ones in the bucket."""
    return Workplace(
        bucket=bucket,
        model=bucket.put_folder("base", base),
        training=bucket.put_lines("data/train.jsonl", [question(number) for number in range(40)]),
        validation=bucket.put_lines("data/valid.jsonl", [question(number) for number in range(40, 48)]),
    )


@pytest.fixture(autouse=True)
def _keep_signal_handler() -> Iterator[None]:
    """Training takes SIGTERM over; pytest gets it back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
