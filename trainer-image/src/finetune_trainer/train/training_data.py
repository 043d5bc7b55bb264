"""The sequences that are trained and measured on, as datasets on a node's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.dataset_reference import PinnedRevisions
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import parse_location
from finetune_trainer.data.encode.chat_template import TemplateError, template_clock
from finetune_trainer.data.encode.token_files import expand, mapped_rows
from finetune_trainer.data.encode.vision import with_images
from finetune_trainer.data.images.images import ImageError, ImageStore
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.read.examples import Example
from finetune_trainer.data.read.formats import MethodFormats
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import read_examples
from finetune_trainer.data.select.choice import Chosen, choose_examples, mounted, survey_dataset
from finetune_trainer.data.select.dataset_record import (
    RECORD_NAME,
    DatasetRecord,
    RecordedSet,
    find_record,
    not_as_written,
)
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import SetName, refuse_invalid
from finetune_trainer.data.select.token_record import fetch_tokens
from finetune_trainer.methods.method import FormatError, Method, Row, formats_of, method_of
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage


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
    """Fetch the datasets as preflight tokenized them, once on each node. Raises DiagnosedError.

    What preflight did not do is done here, by the same rules: it tokenizes no examples with images, whose files are
    needed anyway, and a run without a preflight has nothing chosen.
    """
    images = ImageStore(directory / "images", storage, tuple(run.allowed_images))
    output = parse_location(run.output_uri)
    directory.mkdir(parents=True, exist_ok=True)
    found = find_record(storage, output)
    if found is None:
        chosen = _choose(run, storage, tokenizer, images, directory / "chosen")
        record, tokens = chosen.record, chosen.tokens
    else:
        record = found.record
        _refuse_other_files(run, record)
        tokens = fetch_tokens(run, storage, found.sha256, tokenizer, directory / "tokens")
    (directory / RECORD_NAME).write_bytes(record.to_bytes())
    for name, file in tokens.items():
        expand(file, _mapped(directory, name))
        file.unlink()
    rendered_at = record.rendered_at or datetime.now(UTC)
    with template_clock(rendered_at):
        _tokenize_others(run, storage, tokenizer, images, directory, record, frozenset(tokens))


def _tokenize_others(
    run: TrainRun,
    storage: Storage,
    tokenizer: Any,
    images: ImageStore,
    directory: Path,
    record: DatasetRecord,
    there: frozenset[SetName],
) -> None:
    """Tokenize the sets of a record that are not `there`."""
    method = method_of(run.method)
    fetched: dict[str, list[DataFile]] = {}
    for name, recorded in _sets(record).items():
        if name in there:
            continue
        source: SetName = "training" if recorded.files == record.training.files else name
        if source not in fetched:
            fetched[source] = recorded.fetch(storage, directory / f"{source}-files", mounted(source))
        taken = _chosen_examples(fetched[source], recorded.mask(), formats_of(run.method.type))
        _save(_tokenize(run, method, tokenizer, images, taken, name), method.columns(tokenizer), directory, name)


def load_sequences(directory: Path) -> SequenceSets:
    """What `write_sequences` wrote on this node."""

    def load(name: SetName) -> Any | None:
        if _mapped(directory, name).exists():
            return mapped_rows(_mapped(directory, name), fingerprint=name)
        from datasets import Dataset

        folder = directory / name
        return Dataset.load_from_disk(str(folder)) if folder.exists() else None

    return SequenceSets(training=load("training"), validation=load("validation"))


def _refuse_other_files(run: TrainRun, record: DatasetRecord) -> None:
    """Raise DiagnosedError if the record has other files than the revisions that the run has pinned."""
    pinned = run.revisions or PinnedRevisions()
    for one, recorded in ((pinned.training, record.training), (pinned.validation, record.validation)):
        files = [] if recorded is None else [file.uri for file in recorded.files]
        if one is not None and files != [one.file_uri]:
            raise not_as_written(parse_location(run.output_uri).join(RECORD_NAME))


def _sets(record: DatasetRecord) -> dict[SetName, RecordedSet]:
    sets: dict[SetName, RecordedSet] = {"training": record.training}
    if record.validation is not None:
        sets["validation"] = record.validation
    return sets


def _mapped(directory: Path, name: SetName) -> Path:
    return directory / f"{name}.arrow"


def data_digests(directory: Path) -> dict[str, str]:
    """The SHA-256 (`sha256:<hex>`) of each file that the examples were chosen from, by its URI.

    Those of a run with a preflight are what preflight read: training reads its tokens, not the files.
    """
    record = DatasetRecord.from_bytes((directory / RECORD_NAME).read_bytes())
    return {file.uri: f"sha256:{file.sha256}" for item in _sets(record).values() for file in item.files}


def _choose(run: TrainRun, storage: Storage, tokenizer: Any, images: ImageStore, directory: Path) -> Chosen:
    if run.dataset.screening is not None:
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"{run.output_uri} has no {RECORD_NAME}, by which preflight says what dataset.screening leaves out. Change "
            "spec.runId, and the dataset is screened again.",
        )
    formats = formats_of(run.method.type)
    surveyed = survey_dataset(storage, run.dataset, formats, directory, run.allowed_datasets, run.revisions)
    refuse_invalid(surveyed.sets)
    settings = run.hyperparameters
    chosen = choose_examples(
        surveyed, run.dataset, method_of(run.method), settings.seed, tokenizer, images, settings.max_length, directory
    )
    refuse_invalid(surveyed.sets)
    return chosen


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
    name: SetName,
) -> Iterator[Row]:
    """The rows that something is learned from within maxLength: as many as preflight counted."""
    for item, files in with_images(tokenizer, images, examples, lambda located: located.example):
        try:
            found = list(method.rows(tokenizer, item.example, files(), training=name == "training"))
        except (FormatError, ImageError, TemplateError) as error:
            raise _invalid(item.uri, item.line, str(error)) from error
        yield from (row for row in found if method.is_learned_from(row, run.hyperparameters.max_length))


def _save(found: Iterator[Row], columns: Any, directory: Path, name: SetName) -> None:
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
