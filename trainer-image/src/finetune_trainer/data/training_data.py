"""The sequences that are trained and measured on, as datasets on a node's disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Method
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.data import subsets
from finetune_trainer.data.examples import Example, read_examples
from finetune_trainer.data.jsonl import LineError
from finetune_trainer.data.rows import FormatError, Row, columns, rows
from finetune_trainer.data.tokenization import TemplateError
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.s3.storage import Storage

TRAINING = "training"
VALIDATION = "validation"


@dataclass(frozen=True)
class SequenceSets:
    """Hugging Face datasets with the columns of the method (rows.py); sequences are not truncated."""

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
    _save(run.method, _tokenize(run.method, tokenizer, chosen, run.dataset.training.uri, TRAINING), directory, TRAINING)
    if validation is None:
        return
    if validation.uri is None:
        held_out = _choose(training_file, run.dataset.training.uri, selection.validation)
        found = _tokenize(run.method, tokenizer, held_out, run.dataset.training.uri, VALIDATION)
        _save(run.method, found, directory, VALIDATION)
    else:
        file = _download(storage, validation.uri, directory / "validation.jsonl")
        found = _tokenize(run.method, tokenizer, _examples(file, validation.uri), validation.uri, VALIDATION)
        _save(run.method, found, directory, VALIDATION)


def load_sequences(directory: Path) -> SequenceSets:
    """What `write_sequences` wrote on this node."""
    from datasets import Dataset

    validation = directory / VALIDATION
    return SequenceSets(
        training=Dataset.load_from_disk(str(directory / TRAINING)),
        validation=Dataset.load_from_disk(str(validation)) if validation.exists() else None,
    )


def _download(storage: Storage, uri: str, file: Path) -> Path:
    storage.download(parse_s3(uri), file, missing=Reason.DATASET_NOT_FOUND)
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


def _tokenize(
    method: Method, tokenizer: Any, examples: Iterator[tuple[int, Example]], uri: str, name: str
) -> Iterator[Row]:
    for line, example in examples:
        try:
            yield from rows(method, tokenizer, example, training=name == TRAINING)
        except (FormatError, TemplateError) as error:
            raise _invalid(uri, line, str(error)) from error


def _save(method: Method, found: Iterator[Row], directory: Path, name: str) -> None:
    """Write rows to disk as they come, so that memory does not grow with the file."""
    from datasets import Dataset, Features, List, Value

    tokens = List(Value("int32"))
    dataset = Dataset.from_generator(
        lambda: found,
        features=Features({column: tokens for column in columns(method)}),
        cache_dir=str(directory / "cache"),
        fingerprint=name,
    )
    dataset.save_to_disk(str(directory / name))


def _invalid(uri: str, line: int, message: str) -> DiagnosedError:
    return DiagnosedError(Reason.DATASET_INVALID, f"Invalid file format. Line {line} of {uri}: {message}")
