"""The manifest of a checkpoint or a result in the storage.

A folder of files exists for readers when its manifest.json does. The manifest is written last, by a conditional PUT
(If-None-Match: *), so a folder is complete or absent and is committed once. It lists each file's size and SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.base import ApiModel, Timestamp

MANIFEST_NAME = "manifest.json"

RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=512)
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ManifestFile(ApiModel):
    """One file below the manifest's folder."""

    path: RelativePath
    size: int = Field(ge=0, description="Bytes.")
    sha256: Sha256


class Manifest(ApiModel):
    """What was committed, by whom."""

    step: int = Field(ge=0)
    attempt: int = Field(ge=0)
    created: Timestamp
    files: list[ManifestFile]
    metrics: dict[str, float] = Field(default={})

    def to_bytes(self) -> bytes:
        """The bytes that are stored, and that the digest is taken of."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()


def digest(manifest: bytes) -> str:
    """`sha256:<hex>` of a stored manifest: the identity of a checkpoint or a result."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()
