"""A bucket of tests' own."""

from __future__ import annotations

import atexit
import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.s3 import REGION, S3, local_s3
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import parse_s3


@dataclass(frozen=True)
class Bucket:
    """Puts test data where the commands under test find it, and reads what they wrote."""

    storage: StorageConfig
    client: Any
    name: str

    def uri(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, body: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return self.uri(key)

    def put_folder(self, key: str, folder: Path) -> str:
        for file in folder.iterdir():
            self.put(f"{key}/{file.name}", file.read_bytes())
        return self.uri(key)

    def put_lines(self, key: str, lines: Sequence[object]) -> str:
        return self.put(key, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def read(self, uri: str) -> bytes:
        location = parse_s3(uri)
        body: bytes = self.client.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        return body

    def empty(self) -> None:
        """Remove all objects: the server of this process outlives its tests."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name):
            if found := [{"Key": one["Key"]} for one in page.get("Contents", ())]:
                answer = self.client.delete_objects(Bucket=self.name, Delete={"Objects": found, "Quiet": True})
                assert not answer.get("Errors"), answer["Errors"]


@contextmanager
def bucket_in_real_s3(name: str) -> Iterator[Bucket]:
    """A bucket in a real S3, whose credentials are in the environment as in a Pod's. It is empty at first and after."""
    s3 = _s3()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
        s3.create_bucket(name)
        bucket = Bucket(StorageConfig(endpoint=s3.endpoint, region=REGION, path_style=True), s3.client(), name)
        yield bucket
        bucket.empty()


@functools.cache
def _s3() -> S3:
    """One for all the buckets of this process: there is one environment, and so one pair of keys."""
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    return until_the_end.enter_context(local_s3())
