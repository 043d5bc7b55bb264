"""The sequences that are trained and measured on, as datasets on a node's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.run import TrainRun
from finetune_api.sources import parse_location
from finetune_trainer.data.encode.chat_template import template_clock
from finetune_trainer.data.encode.tokenization import TemplateError
from finetune_trainer.data.encode.vision import with_images
from finetune_trainer.data.images.images import ImageError, ImageStore
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.read.examples import Example
from finetune_trainer.data.read.formats import MethodFormats
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import read_examples
from finetune_trainer.data.select.choice import choose_examples, mounted, survey_dataset
from finetune_trainer.data.select.dataset_record import RECORD_NAME, DatasetRecord, find_record
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import refuse_invalid
from finetune_trainer.methods.method import FormatError, Method, Row, formats_of, method_of
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage

TRAINING = "training"
VALIDATION = "validation"


@dataclass(frozen=True)
class SequenceSets:
    """Hugging Face datasets with the columns of the method; sequences are not truncated."""

    training: Any
    validation: Any | None


@dataclass(frozen=True)
class LocatedExample:
    """An example, its file's URI and its line."""

    uri: str
    line: int
    example: Example


def write_sequences(run: TrainRun, storage: Storage, tokenizer: Any, directory: Path) -> None:
    """Fetch and tokenize the datasets, once on each node. Raises DiagnosedError.

    What preflight chose is taken; a run without a preflight chooses here, by the same rules.
    """
    images = ImageStore(directory / "images", storage, tuple(run.allowed_images))
    output = parse_location(run.output_uri)
    record = find_record(storage, output) or _choose(run, storage, tokenizer, images, directory / "chosen")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RECORD_NAME).write_text(record.model_dump_json(by_alias=True))
    with template_clock(record.rendered_at or datetime.now(UTC)):
        _write(run, storage, tokenizer, images, directory, record)


def _write(
    run: TrainRun, storage: Storage, tokenizer: Any, images: ImageStore, directory: Path, record: DatasetRecord
) -> None:
    method = method_of(run.method)
    columns = method.columns(tokenizer)
    files = record.training.fetch(storage, directory / "training-files", mounted("training"))
    taken = _chosen_examples(files, record.training.mask(), formats_of(run.method.type))
    _save(_tokenize(run, method, tokenizer, images, taken, TRAINING), columns, directory, TRAINING)
    if record.validation is None:
        return
    if record.validation.files != record.training.files:
        files = record.validation.fetch(storage, directory / "validation-files", mounted("validation"))
    taken = _chosen_examples(files, record.validation.mask(), formats_of(run.method.type))
    _save(_tokenize(run, method, tokenizer, images, taken, VALIDATION), columns, directory, VALIDATION)


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
    record = DatasetRecord.model_validate_json((directory / RECORD_NAME).read_bytes())
    sets = [item for item in (record.training, record.validation) if item is not None]
    return {file.uri: f"sha256:{file.sha256}" for item in sets for file in item.files}


def _choose(run: TrainRun, storage: Storage, tokenizer: Any, images: ImageStore, directory: Path) -> DatasetRecord:
    surveyed = survey_dataset(storage, run.dataset, formats_of(run.method.type), directory, run.allowed_datasets)
    refuse_invalid(surveyed.sets)
    settings = run.hyperparameters
    chosen = choose_examples(
        surveyed, run.dataset, method_of(run.method), settings.seed, tokenizer, images, settings.max_length
    )
    refuse_invalid(surveyed.sets)
    return chosen.record


def _chosen_examples(files: Sequence[DataFile], taken: Mask, method: MethodFormats) -> Iterator[LocatedExample]:
    """The examples that were chosen. The files are what was checked: a broken line can't be."""
    position = 0
    for file in files:
        for item in read_examples(file.path, method):
            if isinstance(item, LineError):
                raise _invalid(file.uri, item.line, item.message)
            if taken[position]:
                yield LocatedExample(file.uri, item.line, item.example)
            position += 1


def _tokenize(
    run: TrainRun,
    method: Method,
    tokenizer: Any,
    images: ImageStore,
    examples: Iterator[LocatedExample],
    name: str,
) -> Iterator[Row]:
    """The rows that something is learned from within maxLength: as many as preflight counted."""
    for item, files in with_images(tokenizer, images, examples, lambda located: located.example):
        try:
            found = list(method.rows(tokenizer, item.example, files(), training=name == TRAINING))
        except (FormatError, ImageError, TemplateError) as error:
            raise _invalid(item.uri, item.line, str(error)) from error
        yield from (row for row in found if method.is_learned_from(row, run.hyperparameters.max_length))


def _save(found: Iterator[Row], columns: Any, directory: Path, name: str) -> None:
    """Write rows to disk as they come, so that memory does not grow with the file."""
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        dataset = Dataset.from_generator(
            lambda: found, features=columns, cache_dir=str(directory / "cache"), fingerprint=name
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DiagnosedError):
            raise error.__cause__ from None
        raise
    dataset.save_to_disk(str(directory / name))


def _invalid(uri: str, line: int, message: str) -> DiagnosedError:
    return DiagnosedError(Reason.DATASET_INVALID, f"Invalid file format. Line {line} of {uri}: {message}")
