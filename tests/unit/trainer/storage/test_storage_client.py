"""How the storage is addressed, by the URLs and headers that botocore makes of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import StorageConfig
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.client import open_client
from finetune_trainer.storage.transfers import Part, split

ADDRESSES: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "https://s3.example.com"}, "https://bucket.s3.example.com/folder/key?"),
    ({"endpoint": "https://s3.example.com", "path_style": True}, "https://s3.example.com/bucket/folder/key?"),
    ({"endpoint": "http://10.0.0.1:9000"}, "http://10.0.0.1:9000/bucket/folder/key?"),
    ({"region": "eu-central-1"}, "https://bucket.s3.eu-central-1.amazonaws.com/folder/key?"),
    ({"region": "eu-central-1", "path_style": True}, "https://s3.eu-central-1.amazonaws.com/bucket/folder/key?"),
]


@pytest.mark.parametrize(("config", "url"), ADDRESSES)
def test_style_region_and_endpoint_make_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], url: str
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    storage = StorageConfig(**{"region": "us-west-2", **config})
    api = open_client(storage, tmp_path / "none", connections=1).api
    signed = api.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "folder/key"})
    assert signed.startswith(url)
    assert f"{storage.region}%2Fs3%2Faws4_request" in signed or "AWSAccessKeyId" in signed


def test_a_pod_identity_that_gives_no_credentials_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/credentials")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with pytest.raises(DiagnosedError) as failed:
        open_client(StorageConfig(region="us-east-1"), tmp_path / "none", connections=1)
    assert failed.value.failure.reason is Reason.STORAGE_DENIED
    assert "There are no credentials for AWS S3 in us-east-1" in failed.value.failure.message


@given(st.integers(0, 10**12), st.integers(2**20, 2**30), st.booleans())
def test_the_parts_are_the_file_in_order(size: int, part_bytes: int, after_first: bool) -> None:
    if size // part_bytes > 1000:
        size %= part_bytes * 1000
    start = part_bytes if after_first else 0
    parts = split(size, part_bytes, start)
    position = start
    for part in parts:
        assert part == Part(position, part.size)
        assert 0 < part.size <= part_bytes
        position += part.size
    assert position == max(size, start)
