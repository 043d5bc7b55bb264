"""`dataset.json`, in the run's folder: which examples of which files preflight chose. Training uses exactly these."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from finetune_api.base import ApiModel
from finetune_api.conditions import Reason
from finetune_api.sources import S3Location
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


class DatasetRecord(ApiModel):
    """The datasets of a run."""

    training: RecordedSet
    validation: RecordedSet | None = Field(None, description="Its files are those of training where that is split.")
    rendered_at: datetime | None = Field(
        None, description="What chat templates take for now, in every attempt, so that all see the same tokens."
    )


def store_record(storage: Storage, output: S3Location, record: DatasetRecord) -> None:
    """Write it to the run's folder."""
    storage.write(output.join(RECORD_NAME), record.model_dump_json(by_alias=True, indent=1).encode())


def find_record(storage: Storage, output: S3Location) -> DatasetRecord | None:
    """Preflight's record, or None. Raises DiagnosedError (DatasetInvalid) if what is stored is not one."""
    body = storage.find(output.join(RECORD_NAME))
    if body is None:
        return None
    try:
        return DatasetRecord.model_validate_json(body)
    except ValidationError as error:
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"{output.join(RECORD_NAME).uri} is not as preflight wrote it. Change spec.runId, and it is written again.",
        ) from error
