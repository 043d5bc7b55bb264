"""The sequences that are trained and measured on, as datasets on a node's disk."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.data import subsets, tokenization, vision
from finetune_trainer.data.chat_rendering import reads_images
from finetune_trainer.data.examples import Example, read_examples
from finetune_trainer.data.images import ImageError, ImageStore
from finetune_trainer.data.jsonl import LineError
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.s3.storage import Storage

TRAINING = "training"
VALIDATION = "validation"


@dataclass(frozen=True)
class SequenceSets:
    """Hugging Face datasets with the columns input_ids and labels, or those of vision.to_record; not truncated."""

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
    images = ImageStore(directory / "images", storage, tuple(run.allowed_images))
    _save(_tokenize(tokenizer, images, chosen, run.dataset.training.uri), directory, TRAINING)
    if validation is None:
        return
    if validation.uri is None:
        held_out = _choose(training_file, run.dataset.training.uri, selection.validation)
        _save(_tokenize(tokenizer, images, held_out, run.dataset.training.uri), directory, VALIDATION)
    else:
        file = _download(storage, validation.uri, directory / "validation.jsonl")
        _save(_tokenize(tokenizer, images, _examples(file, validation.uri), validation.uri), directory, VALIDATION)


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
    tokenizer: Any, images: ImageStore, examples: Iterator[tuple[int, Example]], uri: str
) -> Iterator[dict[str, Any]]:
    if reads_images(tokenizer):
        yield from _with_images(tokenizer, images, examples, uri)
        return
    for line, example in examples:
        try:
            sequences = tokenization.tokenize(tokenizer, example)
        except tokenization.TemplateError as error:
            raise _invalid(uri, line, str(error)) from error
        for sequence in sequences:
            yield {"input_ids": sequence.input_ids, "labels": sequence.labels}


def _with_images(
    processor: Any, images: ImageStore, examples: Iterator[tuple[int, Example]], uri: str
) -> Iterator[dict[str, Any]]:
    for line, example, files in images.ahead(examples):
        try:
            rows = vision.to_rows(processor, example, files.result())
        except (tokenization.TemplateError, ImageError) as error:
            raise _invalid(uri, line, str(error)) from error
        yield from (vision.to_record(row) for row in rows)


def _save(rows: Iterator[dict[str, Any]], directory: Path, name: str) -> None:
    """Write rows to disk as they come, so that memory does not grow with the file."""
    from datasets import Dataset, Features, List, Value
    from datasets.exceptions import DatasetGenerationError

    numbers = List(Value("int32"))
    forms = {
        "input_ids": {"input_ids": numbers, "labels": numbers},
        "text": {"text": Value("string"), "turns": List(numbers), "images": List(Value("string"))},
    }
    first = next(rows, None)
    try:
        dataset = Dataset.from_generator(
            lambda: rows if first is None else itertools.chain([first], rows),
            features=Features(forms["text" if first is not None and "text" in first else "input_ids"]),
            cache_dir=str(directory / "cache"),
            fingerprint=name,
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DiagnosedError):
            raise error.__cause__ from None
        raise
    dataset.save_to_disk(str(directory / name))


def _invalid(uri: str, line: int, message: str) -> DiagnosedError:
    return DiagnosedError(Reason.DATASET_INVALID, f"Invalid file format. Line {line} of {uri}: {message}")
