"""The sequences that are trained and measured on, as datasets on a node's disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.run import TrainRun
from finetune_api.sources import parse_location
from finetune_trainer.data import subsets, tokenization
from finetune_trainer.data.examples import Example, read_examples
from finetune_trainer.data.jsonl import LineError
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.s3.storage import Storage

TRAINING = "training"
VALIDATION = "validation"


@dataclass(frozen=True)
class SequenceSets:
    """Hugging Face datasets with the columns input_ids and labels; sequences are not truncated."""

    training: Any
    validation: Any | None


def write_sequences(run: TrainRun, storage: Storage, tokenizer: Any, directory: Path) -> None:
    """Fetch and tokenize the datasets, once on each node. Raises DiagnosedError."""
    training_file = _download(storage, run.dataset.training.uri, directory / "training.jsonl")
    validation = run.dataset.validation
    selection = subsets.select(
        sum(1 for _ in _examples(training_file, run.dataset.training.uri)),
        seed=run.hyperparameters.seed,
        split_percent=validation.split_percent if validation else None,
        limit=run.dataset.training.limit,
    )
    chosen = _choose(training_file, run.dataset.training.uri, selection.training)
    _save(_tokenize(tokenizer, chosen, run.dataset.training.uri), directory, TRAINING)
    if validation is None:
        return
    if validation.uri is None:
        held_out = _choose(training_file, run.dataset.training.uri, selection.validation)
        _save(_tokenize(tokenizer, held_out, run.dataset.training.uri), directory, VALIDATION)
    else:
        file = _download(storage, validation.uri, directory / "validation.jsonl")
        _save(_tokenize(tokenizer, _examples(file, validation.uri), validation.uri), directory, VALIDATION)


def load_sequences(directory: Path) -> SequenceSets:
    """What `write_sequences` wrote on this node."""
    from datasets import Dataset

    validation = directory / VALIDATION
    return SequenceSets(
        training=Dataset.load_from_disk(str(directory / TRAINING)),
        validation=Dataset.load_from_disk(str(validation)) if validation.exists() else None,
    )


def data_digests(directory: Path) -> dict[str, str]:
    """The SHA-256 (`sha256:<hex>`) of each file that `write_sequences` read, by its URI."""
    files = (json.loads(record.read_bytes()) for record in sorted(directory.glob("*.digest.json")))
    return {file["uri"]: file["digest"] for file in files}


def _download(storage: Storage, uri: str, file: Path) -> Path:
    storage.download(parse_location(uri), file, missing=Reason.DATASET_NOT_FOUND)
    with file.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    file.with_suffix(".digest.json").write_text(json.dumps({"uri": uri, "digest": digest}))
    return file


def _examples(file: Path, uri: str) -> Iterator[tuple[int, Example]]:
    """Lines and examples. Preflight has seen the file: a broken line means that it has changed since."""
    for item in read_examples(file):
        if isinstance(item, LineError):
            raise _invalid(uri, item.line, item.message)
        yield item.line, item.example


def _choose(file: Path, uri: str, positions: Collection[int]) -> Iterator[tuple[int, Example]]:
    chosen = frozenset(positions)
    return (item for position, item in enumerate(_examples(file, uri)) if position in chosen)


def _tokenize(tokenizer: Any, examples: Iterator[tuple[int, Example]], uri: str) -> Iterator[dict[str, list[int]]]:
    for line, example in examples:
        try:
            sequences = tokenization.tokenize(tokenizer, example)
        except tokenization.TemplateError as error:
            raise _invalid(uri, line, str(error)) from error
        for sequence in sequences:
            yield {"input_ids": sequence.input_ids, "labels": sequence.labels}


def _save(rows: Iterator[dict[str, list[int]]], directory: Path, name: str) -> None:
    """Write rows to disk as they come, so that memory does not grow with the file."""
    from datasets import Dataset, Features, List, Value

    tokens = List(Value("int32"))
    dataset = Dataset.from_generator(
        lambda: rows,
        features=Features({"input_ids": tokens, "labels": tokens}),
        cache_dir=str(directory / "cache"),
        fingerprint=name,
    )
    dataset.save_to_disk(str(directory / name))


def _invalid(uri: str, line: int, message: str) -> DiagnosedError:
    return DiagnosedError(Reason.DATASET_INVALID, f"Invalid file format. Line {line} of {uri}: {message}")
