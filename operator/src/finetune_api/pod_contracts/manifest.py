"""The objects of the commit protocol: the claims on a run, and the manifests of its checkpoints and its result.

finetune_trainer/storage/commits.py specifies how they are written and read.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from finetune_api.base import ApiModel, RunFile, Timestamp

MANIFEST_NAME = "manifest.json"

RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=512)
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ClaimRecord(RunFile):
    """`claims/000003.json`: the process that holds the run from here on."""

    attempt: int = Field(ge=0)
    created: Timestamp
    token: str = Field(description="Random: two claims never have the same bytes.")


class ManifestFile(ApiModel):
    """One file below the manifest's folder."""

    path: RelativePath
    size: int = Field(ge=0, description="Size in bytes.")
    sha256: Sha256


class CheckpointKey(ApiModel):
    """Identifies a checkpoint by its step and the claim under which it was written."""

    step: int = Field(ge=0)
    claim: int = Field(ge=1)


class Manifest(RunFile):
    """What was committed, and by which process."""

    step: int = Field(ge=0)
    claim: int = Field(ge=1)
    attempt: int = Field(ge=0)
    created: Timestamp
    files: list[ManifestFile]
    metrics: dict[str, float] = Field(default={})
    follows: list[CheckpointKey] = Field(default=[], description="The other valid checkpoints, oldest first.")

    @model_validator(mode="after")
    def _files_differ(self) -> Self:
        paths = [file.path for file in self.files]
        if len(set(paths)) < len(paths):
            raise ValueError("two files have the same path")
        return self

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        steps = [*(key.step for key in self.follows), self.step]
        if any(earlier >= later for earlier, later in pairwise(steps)):
            raise ValueError("follows must have ascending steps, all before this one")
        return self

    @property
    def key(self) -> CheckpointKey:
        """The checkpoint that this manifest describes."""
        return CheckpointKey(step=self.step, claim=self.claim)


def digest(manifest: bytes) -> str:
    """`sha256:<hex>` of a stored manifest: the identity of a checkpoint or a result."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()
