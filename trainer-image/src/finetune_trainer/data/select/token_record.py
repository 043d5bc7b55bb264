"""`tokens.json`, in the run's folder: the tokenized rows that training takes, and what they were made of and by.

It is not part of dataset.json, in which earlier trainers refuse unknown fields: after a rollback they tokenize.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from finetune_api.base import RunFile
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.manifest import Sha256
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.data.encode.chat_template import text_tokenizer
from finetune_trainer.data.select.dataset_record import not_as_written
from finetune_trainer.data.select.survey import SetName
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import MismatchError, Storage

TOKENS_NAME = "tokens.json"
FOLDER = "tokens"
SET_BY_CALLS = ("truncation", "padding")
"""Of a backend tokenizer's state; the files don't determine it."""


class TokenRecord(RunFile):
    """The rows of a run, by set."""

    dataset: Sha256 = Field(description="Of the dataset.json whose examples they are.")
    tokenizer: Sha256 = Field(description="Of the tokenizer that made them, with its chat template.")
    libraries: str = Field(description="Those that loaded the tokenizer.")
    rows: dict[SetName, Sha256] = Field(description="Of `tokens/<SHA-256>.arrow`, in hex.")


def store_tokens(
    storage: Storage, output: StorageLocation, dataset: str, processor: Any, tokens: Mapping[SetName, Path]
) -> None:
    """Store rows and their record; then remove the rows of the record that was there before.

    `dataset`: the SHA-256 of dataset.json, written before. `processor`: what made the rows.
    """
    if not tokens:
        return
    before = _find(storage, output)
    rows: dict[SetName, str] = {}
    for name, file in tokens.items():
        with file.open("rb") as stream:
            rows[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        storage.upload(file, output.join(_path(rows[name])))
    record = TokenRecord(
        dataset=dataset, tokenizer=_tokenizer_digest(processor), libraries=_tokenizer_libraries(), rows=rows
    )
    storage.write(output.join(TOKENS_NAME), record.to_bytes())
    outdated = set(before.rows.values()) - set(rows.values()) if before is not None else set()
    with contextlib.suppress(DiagnosedError):  # they only take space; training without them tokenizes
        storage.delete(output.join(_path(digest)) for digest in outdated)


def fetch_tokens(
    run: TrainRun, storage: Storage, dataset: str, processor: Any, directory: Path
) -> Mapping[SetName, Path]:
    """The compressed rows that preflight stored of the examples of dataset.json; empty where training must tokenize.

    That is if there are none, if they are those of another dataset.json, or if other libraries loaded their tokenizer.
    Raises DiagnosedError: ModelInvalid when the tokenizer is not the one that made them, or DatasetInvalid.
    """
    output = parse_location(run.output_uri)
    record = _find(storage, output)
    if record is None or record.dataset != dataset or record.libraries != _tokenizer_libraries():
        return {}
    stored = {item.path for item in storage.list_objects(output.join(FOLDER))}
    if not stored.issuperset(f"{digest}.arrow" for digest in record.rows.values()):
        return {}
    if record.tokenizer != _tokenizer_digest(processor):
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The tokenizer or chat template of {run.model.adapter_uri or run.model.uri} has changed since preflight "
            "tokenized the dataset with it. Change spec.runId: the new run is checked and tokenized with this one.",
        )
    return {name: _fetch(storage, output, digest, directory / name) for name, digest in record.rows.items()}


def _tokenizer_digest(processor: Any) -> str:
    """The SHA-256, in hex, of a fast tokenizer as it is loaded, with its chat template and its special tokens."""
    tokenizer = text_tokenizer(processor)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    loaded = {name: value for name, value in backend.items() if name not in SET_BY_CALLS}
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    identity = [loaded, processor.chat_template, named, sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _tokenizer_libraries() -> str:
    """The libraries whose versions determine how a tokenizer's files are read: digests of others are not comparable."""
    return ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "transformers"))


def _fetch(storage: Storage, output: StorageLocation, digest: str, file: Path) -> Path:
    location = output.join(_path(digest))
    try:
        storage.download(location, file, sha256=digest)
    except MismatchError as error:
        raise not_as_written(location) from error
    return file


def _find(storage: Storage, output: StorageLocation) -> TokenRecord | None:
    """None also for what another version wrote and this one can't read: training tokenizes then."""
    body = storage.find(output.join(TOKENS_NAME))
    try:
        return None if body is None else TokenRecord.from_bytes(body)
    except ValidationError:
        return None


def _path(digest: str) -> str:
    return f"{FOLDER}/{digest}.arrow"
