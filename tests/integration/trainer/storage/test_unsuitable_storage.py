"""A storage that does not honour If-None-Match, on which all commits rest, is named in preflight, not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation, parse_location, parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.commits import check_storage
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.storage.s3_proxy import Answer, S3Proxy, SayDone, s3_proxy
from tests.integration.trainer_evaluation.buckets import Bucket


@pytest.fixture(scope="module")
def proxy(bucket: Bucket) -> Iterator[S3Proxy]:
    with s3_proxy(str(bucket.storage.endpoint)) as proxy:
        yield proxy


@pytest.fixture
def output(bucket: Bucket, request: pytest.FixtureRequest) -> StorageLocation:
    return parse_s3(bucket.uri(f"suitable/{request.node.name}"))


def refusal(bucket: Bucket, proxy: S3Proxy, output: StorageLocation) -> DiagnosedError:
    proxy.forget()
    config = bucket.storage.model_copy(update={"endpoint": proxy.endpoint, "outage_tolerance_seconds": 60})
    with pytest.raises(DiagnosedError) as error:
        check_storage(Storage(config), output)
    return error.value


def test_a_suitable_storage_passes_and_nothing_is_left(storage: Storage, output: StorageLocation) -> None:
    check_storage(storage, output)
    assert storage.list_objects(output) == []


def test_a_local_folder_passes_and_keeps_nothing_of_the_check(tmp_path: Path) -> None:
    storage = open_storage(StorageConfig(region="us-east-1", local_folders=True))
    check_storage(storage, parse_location((tmp_path / "run").as_uri()))
    assert not list(tmp_path.rglob("*"))


def test_one_that_writes_over_is_named(
    bucket: Bucket, storage: Storage, proxy: S3Proxy, output: StorageLocation
) -> None:
    proxy.arm(SayDone(), kind="PutObject", at=3)
    failure = refusal(bucket, proxy, output).failure
    assert (failure.reason, failure.retryable) == (Reason.STORAGE_UNSUITABLE, False)
    assert f"it overwrote {output.uri}" in failure.message
    assert "despite If-None-Match: *" in failure.message
    assert storage.list_objects(output) == []


@pytest.mark.parametrize(
    "answer",
    [Answer(501, "NotImplemented"), Answer(501, ""), Answer(400, "InvalidArgument"), Answer(405, "MethodNotAllowed")],
    ids=lambda answer: f"{answer.status} {answer.code}",
)
def test_one_that_can_not_is_named_at_once(
    bucket: Bucket, proxy: S3Proxy, output: StorageLocation, answer: Answer
) -> None:
    """As MinIO's gateways and old servers answer: the outage tolerance is for what passes."""
    proxy.arm(answer, kind="PutObject", at=2, times=None)
    try:
        failure = refusal(bucket, proxy, output).failure
    finally:
        proxy.disarm()
    assert (failure.reason, failure.retryable) == (Reason.STORAGE_UNSUITABLE, False)
    assert "If-None-Match" in failure.message
    assert proxy.count("PutObject") == 2


def test_one_that_refuses_the_first_write_too_is_named(bucket: Bucket, proxy: S3Proxy, output: StorageLocation) -> None:
    proxy.arm(Answer(412, "PreconditionFailed"), kind="PutObject", at=2, times=None)
    try:
        failure = refusal(bucket, proxy, output).failure
    finally:
        proxy.disarm()
    assert (failure.reason, failure.retryable) == (Reason.STORAGE_UNSUITABLE, False)
