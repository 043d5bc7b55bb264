"""`dataset.json`, in the run's folder: which examples of which files preflight chose. Training uses exactly these."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from finetune_api.base import NEWER_FORMAT, ApiModel, RunFile
from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.data.read.data_files import DataFile, fetch_file
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage

RECORD_NAME = "dataset.json"


class RecordedFile(ApiModel):
    """A file as preflight read it."""

    uri: str
    sha256: str = Field(description="Hex.")


class RecordedSet(ApiModel):
    """Files, and a mask of the examples that were chosen from them."""

    files: list[RecordedFile]
    examples: int
    taken: str = Field(description="A bit for each example, the first one the highest of the first byte, in base64.")

    @classmethod
    def of(cls, files: Sequence[DataFile], taken: Mask) -> RecordedSet:
        """The record of a mask."""
        return cls(
            files=[RecordedFile(uri=file.uri, sha256=file.sha256) for file in files],
            examples=len(taken),
            taken=base64.b64encode(np.packbits(taken).tobytes()).decode(),
        )

    def mask(self) -> Mask:
        """Which examples are taken."""
        bits = np.frombuffer(base64.b64decode(self.taken), dtype=np.uint8)
        return np.unpackbits(bits, count=self.examples).astype(bool)

    def fetch(self, storage: Storage, directory: Path, mounted: Path) -> list[DataFile]:
        """The files. Raises DiagnosedError (DatasetInvalid) when one has changed since preflight read it."""
        directory.mkdir(parents=True, exist_ok=True)
        return [
            fetch_file(storage, file.uri, directory / f"{number:05}", sha256=file.sha256, mounted=mounted)
            for number, file in enumerate(self.files)
        ]


class DatasetRecord(RunFile):
    """The datasets of a run."""

    training: RecordedSet
    validation: RecordedSet | None = Field(None, description="Its files are those of training where that is split.")
    rendered_at: datetime | None = Field(
        None, description="What chat templates take for now, in every attempt, so that all see the same tokens."
    )


def store_record(storage: Storage, output: StorageLocation, record: DatasetRecord) -> str:
    """Write it to the run's folder. Returns the SHA-256, in hex, of what was written."""
    body = record.to_bytes()
    storage.write(output.join(RECORD_NAME), body)
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True)
class FoundRecord:
    """A record, and the SHA-256, in hex, of its file."""

    record: DatasetRecord
    sha256: str


def find_record(storage: Storage, output: StorageLocation) -> FoundRecord | None:
    """Preflight's record, or None. Raises DiagnosedError (DatasetInvalid) if what is stored is not one."""
    location = output.join(RECORD_NAME)
    body = storage.find(location)
    if body is None:
        return None
    try:
        return FoundRecord(DatasetRecord.from_bytes(body), hashlib.sha256(body).hexdigest())
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] != NEWER_FORMAT:
            raise not_as_written(location) from error
        message = (
            f"{location.uri} was written by a newer trainer: {problem['msg']}. Use the operator and the image of that "
            "version again, or change spec.runId, and this version starts over."
        )
        raise DiagnosedError(Reason.DATASET_INVALID, message) from error


def not_as_written(location: StorageLocation) -> DiagnosedError:
    """The error for a file in the run's folder that was not written by us."""
    return DiagnosedError(
        Reason.DATASET_INVALID,
        f"{location.uri} is not as preflight wrote it. Change spec.runId, and it is written again.",
    )
