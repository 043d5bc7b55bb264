"""The edge to S3, on a real one: what it does, and what it says when it can't."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.cluster.ports import free_ports
from finetune_api.conditions import Reason
from finetune_api.run import StorageConfig
from finetune_api.sources import S3Location, parse_s3
from finetune_trainer import storage as storage_module
from finetune_trainer.failures import DiagnosedError
from finetune_trainer.storage import Storage, StoredObject
from tests.integration.trainer_evaluation.buckets import Bucket


def at(bucket: Bucket, key: str) -> S3Location:
    return parse_s3(bucket.uri(key))


def test_objects_are_written_listed_read_and_deleted(bucket: Bucket, storage: Storage) -> None:
    folder = at(bucket, "plain")
    storage.write(folder.join("b"), b"two")
    storage.write(folder.join("a/c"), b"one")
    storage.write(at(bucket, "plainer"), b"a neighbour")
    assert storage.list_objects(folder) == [StoredObject("a/c", 3), StoredObject("b", 3)]
    assert storage.read(folder.join("b")) == b"two"
    assert storage.read_range(folder.join("b"), 1, 2) == b"wo"
    storage.delete([folder.join("b"), folder.join("never was there")])
    assert storage.list_objects(folder) == [StoredObject("a/c", 3)]


def test_only_the_first_write_if_absent_counts(bucket: Bucket, storage: Storage) -> None:
    assert storage.write_if_absent(at(bucket, "once"), b"first")
    assert not storage.write_if_absent(at(bucket, "once"), b"second")
    assert storage.read(at(bucket, "once")) == b"first"


def test_a_large_file_goes_in_parts_and_comes_back_whole(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(20 * 2**20)
    (tmp_path / "large").write_bytes(content)
    storage.upload(tmp_path / "large", at(bucket, "large"))
    storage.download(at(bucket, "large"), tmp_path / "new" / "folder" / "large")
    assert (tmp_path / "new" / "folder" / "large").read_bytes() == content


def test_a_missing_object_fails_with_the_callers_reason(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    for work in (
        lambda: storage.read(at(bucket, "none"), Reason.DATASET_NOT_FOUND),
        lambda: storage.download(at(bucket, "none"), tmp_path / "none", Reason.DATASET_NOT_FOUND),
        lambda: storage.read(S3Location("no-such-bucket", "none"), Reason.DATASET_NOT_FOUND),
    ):
        with pytest.raises(DiagnosedError) as failed:
            work()
        assert failed.value.failure.reason is Reason.DATASET_NOT_FOUND


def failure(storage: Storage, location: S3Location) -> DiagnosedError:
    with pytest.raises(DiagnosedError) as failed:
        storage.write(location, b"")
    return failed.value


def test_a_missing_bucket_is_named(storage: Storage) -> None:
    with pytest.raises(DiagnosedError, match="'no-such-bucket'") as failed:
        storage.list_objects(S3Location("no-such-bucket", "folder"))
    assert failed.value.failure.reason is Reason.BUCKET_NOT_FOUND


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_denied_and_never_shown(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv(name, "wrong")
    error = failure(Storage(bucket.storage), at(bucket, "key"))
    assert error.failure.reason is Reason.STORAGE_DENIED
    assert not error.failure.retryable
    assert "Check the keys in the Secret" in error.failure.message
    assert secret not in error.failure.message


def test_missing_credentials_say_what_to_set(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    error = failure(Storage(bucket.storage), at(bucket, "key"))
    assert error.failure.reason is Reason.STORAGE_DENIED
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error.failure.message


def test_a_storage_that_does_not_answer_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "ATTEMPTS", 2)
    (port,) = free_ports(1)
    config = StorageConfig(endpoint=f"http://127.0.0.1:{port}", region="us-east-1", path_style=True)
    error = failure(Storage(config), S3Location("bucket", "key"))
    assert error.failure.reason is Reason.STORAGE_UNREACHABLE
    assert error.failure.retryable
    assert f"http://127.0.0.1:{port} did not answer for s3://bucket/key" in error.failure.message
