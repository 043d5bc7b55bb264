"""A bucket of a test session's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.run import StorageConfig
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
