"""The S3 storage of a process, which other integration tests stand on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from e2e.s3 import S3, local_s3

BUCKET = "test-s3"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with local_s3() as storage:
        storage.create_bucket(BUCKET)
        yield storage


def test_what_is_uploaded_comes_back(s3: S3, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(bytes(range(256)) * 40_000)  # 10 MB: several parts
    s3.upload(file, BUCKET, "models/model.bin")
    assert s3.client().get_object(Bucket=BUCKET, Key="models/model.bin")["Body"].read() == file.read_bytes()


def test_an_object_that_is_there_is_not_written_conditionally(s3: S3) -> None:
    client = s3.client()
    client.put_object(Bucket=BUCKET, Key="manifest", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=BUCKET, Key="manifest", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket=BUCKET, Key="manifest")["Body"].read() == b"first"


def test_creating_a_bucket_again_keeps_what_it_holds(s3: S3) -> None:
    s3.put(BUCKET, "kept", b"1")
    s3.create_bucket(BUCKET)
    assert s3.client().head_object(Bucket=BUCKET, Key="kept")["ContentLength"] == 1


def test_deleting_twice_is_no_error(s3: S3) -> None:
    s3.put(BUCKET, "gone", b"1")
    s3.delete(BUCKET, "gone")
    s3.delete(BUCKET, "gone")
    assert s3.client().list_objects_v2(Bucket=BUCKET, Prefix="gone")["KeyCount"] == 0


def test_other_credentials_are_refused(s3: S3) -> None:
    stranger = S3(s3.endpoint, s3.access_key, "wrong").client()
    with pytest.raises(ClientError) as refused:
        stranger.list_objects_v2(Bucket=BUCKET)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_any_client_finds_it_by_the_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    buckets = boto3.client("s3").list_buckets()["Buckets"]
    assert BUCKET in [bucket["Name"] for bucket in buckets]


def test_it_goes_with_a_run_that_was_killed() -> None:
    program = (
        "import time\n"
        "from e2e.s3 import local_s3\n"
        "with local_s3() as storage:\n"
        "    print(storage.endpoint, storage.access_key, storage.secret_key, flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = os.pathsep.join(sys.path)
    run = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert run.stdout is not None
    storage = S3(*run.stdout.readline().split())
    storage.create_bucket(BUCKET)
    run.kill()
    run.communicate(timeout=20)
    deadline = time.monotonic() + 20
    with pytest.raises(BotoCoreError):  # nobody listens any more
        while time.monotonic() < deadline:
            storage.put(BUCKET, "late", b"1")


def test_two_at_once_do_not_meet(s3: S3) -> None:
    with local_s3() as other:
        assert other.endpoint != s3.endpoint
        assert other.client().list_buckets()["Buckets"] == []
