"""A run that goes on under another version: what each trainer wrote, the other one reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from finetune_api.base import RunFile
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.manifest import ClaimRecord, Manifest
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import parse_location
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.select.dataset_record import DatasetRecord, RecordedSet, find_record, store_record
from finetune_trainer.data.select.token_record import TokenRecord
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.open_storage import open_storage

NOW = "2026-11-27T13:00:00Z"
FIRST_DATASET_JSON = json.dumps(
    {
        "training": {
            "files": [{"uri": "s3://data/train.jsonl", "sha256": "ab" * 32}],
            "examples": 3,
            "taken": "oA==",
        },
        "validation": None,
        "renderedAt": NOW,
    },
    indent=1,
).encode()
"""As the trainer of commit fcdfa79a wrote it."""


class _Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class FirstFile(_Strict):
    """These three read dataset.json in commit fcdfa79a."""

    uri: str
    sha256: str


class FirstSet(_Strict):
    files: list[FirstFile]
    examples: int
    taken: str


class FirstRecord(_Strict):
    training: FirstSet
    validation: FirstSet | None = None
    rendered_at: datetime | None = None


def record() -> DatasetRecord:
    file = DataFile(uri="s3://data/train.jsonl", path=Path("train.jsonl"), sha256="ab" * 32)
    taken = RecordedSet.of([file], np.array([True, False, True]))
    return DatasetRecord(training=taken, rendered_at=datetime(2026, 11, 27, 13, tzinfo=UTC))


def test_the_selection_of_the_first_version_is_read() -> None:
    assert DatasetRecord.from_bytes(FIRST_DATASET_JSON) == record()


def test_the_first_version_reads_the_selection() -> None:
    read = FirstRecord.model_validate_json(record().to_bytes())
    assert read == FirstRecord.model_validate_json(FIRST_DATASET_JSON)


DATASET = json.loads(FIRST_DATASET_JSON)
MANIFEST = {
    "step": 10,
    "claim": 1,
    "attempt": 1,
    "created": NOW,
    "files": [{"path": "weights", "size": 5, "sha256": "0" * 64}],
    "metrics": {"evalLoss": 0.5},
    "follows": [{"step": 5, "claim": 1}],
}
CLAIM = {"attempt": 1, "created": NOW, "token": "f00d"}
TOKENS = {"dataset": "0" * 64, "tokenizer": "1" * 64, "libraries": "tokenizers 0.22", "rows": {"training": "2" * 64}}
FILES = pytest.mark.parametrize(
    ("kind", "file"),
    [(DatasetRecord, DATASET), (Manifest, MANIFEST), (ClaimRecord, CLAIM), (TokenRecord, TOKENS)],
    ids=["dataset.json", "manifest.json", "a claim", "tokens.json"],
)


def with_new_fields(value: Any) -> Any:
    """One more in every object that has names of fields."""
    if isinstance(value, list):
        return [with_new_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {name: item if name in ("metrics", "rows") else with_new_fields(item) for name, item in value.items()}
    return {**inner, "ofALaterVersion": True}


@FILES
def test_fields_of_a_later_version_are_ignored(kind: type[RunFile], file: dict[str, Any]) -> None:
    assert kind.from_bytes(json.dumps(with_new_fields(file)).encode()) == kind.from_bytes(json.dumps(file).encode())


@FILES
def test_only_fields_that_the_first_version_knew_are_written(kind: type[RunFile], file: dict[str, Any]) -> None:
    written = json.loads(kind.from_bytes(json.dumps(file).encode()).to_bytes())
    assert written == {name: value for name, value in file.items() if value is not None}


@FILES
def test_a_later_format_is_refused_by_name(kind: type[RunFile], file: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="it has format 2, and this version reads up to 1"):
        kind.from_bytes(json.dumps({"format": 2, **dict.fromkeys(file)}).encode())


def test_a_selection_of_a_later_format_names_the_version_as_the_cause(tmp_path: Path) -> None:
    storage = open_storage(StorageConfig(region="us-east-1", local_folders=True))
    output = parse_location(tmp_path.as_uri())
    store_record(storage, output, record())
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"format": 2, **json.loads(file.read_text())}))
    with pytest.raises(DiagnosedError, match="written by a newer trainer: it has format 2") as refused:
        find_record(storage, output)
    assert refused.value.failure.reason is Reason.DATASET_INVALID
