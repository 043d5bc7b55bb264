"""The edge to S3, on a real one: what it does, and what it says when it can't."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.machine.ports import free_ports
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import transfers
from finetune_trainer.storage.storage import MismatchError, Storage, StoredFile, StoredObject
from tests.integration.trainer_evaluation.buckets import Bucket

MIB = 2**20


def at(bucket: Bucket, key: str) -> StorageLocation:
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
    assert storage.write_if_absent(at(bucket, "once"), b"first"), "what is there is what was to be written"


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_a_file_of_any_size_comes_back_whole(bucket: Bucket, storage: Storage, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    location = at(bucket, f"sizes/{size}")
    stored = storage.upload(tmp_path / "file", location)
    assert stored == StoredFile(size, hashlib.sha256(content).hexdigest())
    assert storage.upload(memoryview(content), at(bucket, f"sizes/{size}-from-memory")) == stored
    assert bucket.read(bucket.uri(f"sizes/{size}-from-memory")) == content
    target = tmp_path / "new" / "folder" / "file"
    storage.download(location, target, size=stored.size, sha256=stored.sha256)
    assert target.read_bytes() == content
    storage.download(location, target)
    assert target.read_bytes() == content


def test_many_large_files_at_once_share_the_memory_for_parts(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    """More files than there is room for parts: nobody waits for ever."""
    contents = {f"{number}": os.urandom(9 * MIB + number) for number in range(transfers.PARTS_IN_MEMORY + 4)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda name: storage.upload(tmp_path / name, at(bucket, f"many/{name}")), contents))
        list(pool.map(lambda name: storage.download(at(bucket, f"many/{name}"), tmp_path / "down" / name), contents))
    assert {name: (tmp_path / "down" / name).read_bytes() for name in contents} == contents


@pytest.mark.parametrize("size", [100, 9 * MIB])
def test_an_object_that_is_not_what_was_expected_is_reported(
    bucket: Bucket, storage: Storage, tmp_path: Path, size: int
) -> None:
    content = bytearray(size)
    bucket.put("mismatch", bytes(content))
    location, target = at(bucket, "mismatch"), tmp_path / "file"
    with pytest.raises(MismatchError, match=f"mismatch has {size} bytes; 7 were expected"):
        storage.download(location, target, size=7)
    content[-1] ^= 1
    with pytest.raises(MismatchError, match="mismatch does not have the expected SHA-256"):
        storage.download(location, target, size=size, sha256=hashlib.sha256(content).hexdigest())


def test_an_absent_object_is_distinguished_from_an_absent_bucket(
    bucket: Bucket, storage: Storage, tmp_path: Path
) -> None:
    bucket.put("found", b"content")
    assert storage.find(at(bucket, "found")) == b"content"
    assert storage.find(at(bucket, "none")) is None
    with pytest.raises(MismatchError, match="none does not exist"):
        storage.download(at(bucket, "none"), tmp_path / "file", size=7)
    nowhere = StorageLocation("no-such-bucket", "none")
    for work in (lambda: storage.find(nowhere), lambda: storage.download(nowhere, tmp_path / "file", size=7)):
        with pytest.raises(DiagnosedError) as failed:
            work()
        assert failed.value.failure.reason is Reason.BUCKET_NOT_FOUND


def test_an_object_may_be_read_while_it_is_replaced_but_never_mixed(
    bucket: Bucket, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("replaced", b"a" * 9 * MIB)
    first = transfers.Transfers._get_first

    def get_first_then_replace(*args: Any, **options: Any) -> transfers.FirstPart:
        answer = first(*args, **options)
        bucket.put("replaced", b"b" * 9 * MIB)
        return answer

    monkeypatch.setattr(transfers.Transfers, "_get_first", get_first_then_replace)
    with pytest.raises(DiagnosedError, match="PreconditionFailed") as failed:
        storage.download(at(bucket, "replaced"), tmp_path / "file")
    assert failed.value.failure.retryable


def test_uploads_that_were_begun_and_not_completed_are_ended(bucket: Bucket, storage: Storage) -> None:
    for key in ("begun/1", "begun/deep/2", "other/3"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    assert storage.abort_uploads(at(bucket, "begun"), lambda path: path == "deep/2") == 1
    assert storage.abort_uploads(at(bucket, "begun")) == 1
    assert storage.abort_uploads(at(bucket, "begun")) == 0
    left = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    # Other tests leave uploads of their own in the bucket.
    assert [upload["Key"] for upload in left if upload["Key"].startswith(("begun/", "other/"))] == ["other/3"]


def test_a_missing_object_fails_with_the_callers_reason(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    for work in (
        lambda: storage.read(at(bucket, "none"), Reason.DATASET_NOT_FOUND),
        lambda: storage.download(at(bucket, "none"), tmp_path / "none", Reason.DATASET_NOT_FOUND),
        lambda: storage.read(StorageLocation("no-such-bucket", "none"), Reason.DATASET_NOT_FOUND),
    ):
        with pytest.raises(DiagnosedError) as failed:
            work()
        assert failed.value.failure.reason is Reason.DATASET_NOT_FOUND


def failure(storage: Storage, location: StorageLocation) -> DiagnosedError:
    with pytest.raises(DiagnosedError) as failed:
        storage.write(location, b"")
    return failed.value


def test_a_missing_bucket_is_named(storage: Storage) -> None:
    with pytest.raises(DiagnosedError, match=r"'no-such-bucket'.*its name: storage.bucket of the FineTune") as failed:
        storage.list_objects(StorageLocation("no-such-bucket", "folder"))
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


def test_a_secret_without_a_key_is_named(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("key")
    error = failure(Storage(bucket.storage, tmp_path), at(bucket, "key"))
    assert error.failure.reason is Reason.SECRET_NOT_FOUND
    assert "has no AWS_SECRET_ACCESS_KEY, or an empty one" in error.failure.message


def test_a_storage_that_does_not_answer_may_do_so_later(tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / name).write_text("key")
    (port,) = free_ports(1)
    config = StorageConfig(
        endpoint=f"http://127.0.0.1:{port}", region="us-east-1", path_style=True, outage_tolerance_seconds=0
    )
    error = failure(Storage(config, tmp_path), StorageLocation("bucket", "key"))
    assert error.failure.reason is Reason.STORAGE_UNREACHABLE
    assert error.failure.retryable
    assert f"http://127.0.0.1:{port} did not answer requests for s3://bucket/key (4 tries in " in error.failure.message
