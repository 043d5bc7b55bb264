"""`dataset.json`, in the run's folder: which examples of which files preflight chose. Training uses exactly these."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from finetune_api.base import ApiModel
from finetune_api.conditions import Reason
from finetune_api.sources import S3Location
from finetune_trainer.data.read.data_files import DataFile, fetch_file
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import SetName
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import MismatchError, Storage

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
    tokens: str | None = Field(
        None, description="The rows that training takes, tokenized: the SHA-256, in hex, of `tokens/<tokens>.arrow`."
    )

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


def store_record(storage: Storage, output: S3Location, record: DatasetRecord, tokens: Mapping[SetName, Path]) -> None:
    """Write it to the run's folder, with the files of tokenized rows."""
    stored: dict[str, RecordedSet] = {}
    for name, file in tokens.items():
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        storage.upload(file, _tokens(output, digest))
        recorded = record.training if name == "training" else record.validation
        assert recorded is not None
        stored[name] = recorded.model_copy(update={"tokens": digest})
    record = record.model_copy(update=stored)
    storage.write(output.join(RECORD_NAME), record.model_dump_json(by_alias=True, indent=1).encode())


def find_record(storage: Storage, output: S3Location) -> DatasetRecord | None:
    """Preflight's record, or None. Raises DiagnosedError (DatasetInvalid) if what is stored is not one."""
    body = storage.find(output.join(RECORD_NAME))
    if body is None:
        return None
    try:
        return DatasetRecord.model_validate_json(body)
    except ValidationError as error:
        raise _not_as_written(output.join(RECORD_NAME)) from error


def fetch_tokens(storage: Storage, output: S3Location, recorded: RecordedSet, file: Path) -> Path | None:
    """The tokenized rows of a set, compressed; None if preflight stored none. Raises DiagnosedError."""
    if recorded.tokens is None:
        return None
    stored = _tokens(output, recorded.tokens)
    try:
        storage.download(stored, file, sha256=recorded.tokens)
    except MismatchError as error:
        raise _not_as_written(stored) from error
    return file


def _tokens(output: S3Location, digest: str) -> S3Location:
    return output.join(f"tokens/{digest}.arrow")


def _not_as_written(location: S3Location) -> DiagnosedError:
    return DiagnosedError(
        Reason.DATASET_INVALID,
        f"{location.uri} is not as preflight wrote it. Change spec.runId, and it is written again.",
    )
