"""Selects the examples of a run: fetches the files, reads every line, and chooses.

Preflight does this; the training Pods take what it recorded (dataset_record.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from finetune_api.finetunejob import Dataset, DatasetSource, DatasetStatus, FileStatistics
from finetune_api.run import DATASET_DIRECTORY
from finetune_trainer.data.encode.token_files import TokenWriter
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.read.data_files import DataFile, fetch_files
from finetune_trainer.data.read.formats import MethodFormats
from finetune_trainer.data.read.reader import unread_keys
from finetune_trainer.data.select.dataset_record import DatasetRecord, RecordedSet
from finetune_trainer.data.select.filters import ISSUE_TEXTS, Mask, QualityIssue, Unwanted, prepare
from finetune_trainer.data.select.screening import Screened
from finetune_trainer.data.select.survey import SetName, Survey, survey
from finetune_trainer.data.select.token_counts import Counted, count_and_check
from finetune_trainer.data.select.tokenizing import ExampleTokenizer, TooLong, tokenizing_processes
from finetune_trainer.methods.method import Method
from finetune_trainer.process.cpu import available_cpus
from finetune_trainer.process.memory import available_memory
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

SHOWN_LINES = 5

_log = structlog.get_logger()


@dataclass(frozen=True)
class Surveyed:
    """Both sets, read. `validation` is None if there is none, or if it is held out from the training set."""

    training: Survey
    validation: Survey | None

    @property
    def sets(self) -> list[Survey]:
        """Those that are there."""
        return [self.training] if self.validation is None else [self.training, self.validation]


@dataclass(frozen=True)
class Chosen:
    """The examples that were chosen, with statistics and warnings for the job's status."""

    record: DatasetRecord
    status: DatasetStatus
    lengths: Sequence[int]
    """Tokens of each sequence of the training set, in order."""
    issues: tuple[QualityIssue, ...]
    tokens: Mapping[SetName, Path]
    """The rows of each set, compressed (token_files.py); none of a model that reads images."""


def mounted(name: SetName) -> Path:
    """The path at which a set's ConfigMap is mounted, if it has one."""
    return Path(DATASET_DIRECTORY) / name


def survey_dataset(
    storage: Storage, dataset: Dataset, method: MethodFormats, directory: Path, allowed: Sequence[str]
) -> Surveyed:
    """Fetch both sets and read every line of them. Raises DiagnosedError as `fetch_files` does."""

    def fetch(name: SetName, source: DatasetSource) -> list[DataFile]:
        with log_progress(f"fetching the {name} set"):
            return fetch_files(storage, source, directory / name, allowed=allowed, mounted=mounted(name))

    training_files = fetch("training", dataset.training)
    own = dataset.validation if dataset.validation is not None and dataset.validation.split_percent is None else None
    validation_files = fetch("validation", own) if own is not None else None
    with log_progress("reading every line"):
        training = survey("training", training_files, method, dataset.format)
        validation = None
        if validation_files is not None:
            validation = survey("validation", validation_files, method, dataset.format or training.format)
    surveyed = Surveyed(training, validation)
    for item in surveyed.sets:
        _log.info(
            f"{item.name} set: {len(item)} examples in {len(item.files)} file(s), {item.error_count} broken lines"
        )
    return surveyed


def choose_examples(
    surveyed: Surveyed,
    dataset: Dataset,
    method: Method,
    seed: int,
    tokenizer: Any,
    images: ImageStore,
    max_length: int,
    directory: Path,
    now: datetime | None = None,
    screened: Screened | None = None,
) -> Chosen:
    """Choose the examples, and count their tokens. Errors found on the way are added to the sets.

    `screened`: what dataset.screening flags. `directory`: where the rows are written. `now`: the time that chat
    templates may print, the same in every attempt of the run. None: the current time.
    """
    now = now or datetime.now(UTC)
    training, too_long = surveyed.training, dataset.prepare.too_long
    validation = training if surveyed.validation is None else surveyed.validation
    own_index = None if surveyed.validation is None else surveyed.validation.example_index
    with log_progress("looking for duplicates, conflicts and leaks"):
        unwanted = Unwanted()
        if screened is not None:
            unwanted = Unwanted(screened.unwanted(training), screened.unwanted(surveyed.validation))
        prepared = prepare(dataset, training.example_index, own_index, seed, unwanted)
    before = prepared.training.sum() + prepared.validation.sum()
    with log_progress("counting tokens"):
        count = _Counter(method, tokenizer, images, max_length, too_long, now, directory)
        counted = count.of(training, prepared.training, "training")
        measured = None if dataset.validation is None else count.of(validation, prepared.validation, "validation")
    held_out = None if measured is None else measured.statistics
    left_out = int(before - prepared.training.sum() - prepared.validation.sum())
    dropped = prepared.dropped.model_copy(update={"too_long": left_out})
    record = DatasetRecord(
        training=RecordedSet.of(training.files, prepared.training),
        validation=None if measured is None else RecordedSet.of(validation.files, prepared.validation),
        rendered_at=now,
    )
    status = DatasetStatus(
        format=training.format,
        training=counted.statistics,
        validation=held_out,
        dropped=dropped if any(dropped.to_wire().values()) else None,
        screening=None if screened is None else screened.status,
        warnings=[
            *(() if screened is None else screened.sentences()),
            *(_issue_warning(issue, training) for issue in prepared.issues if len(issue.positions)),
            *_length_warnings(counted.statistics, held_out, left_out, max_length),
            *(f"{item.name.capitalize()} set: {unread_keys(item.unread)}" for item in surveyed.sets if item.unread),
            *_control_text_warnings(surveyed.sets),
        ],
    )
    return Chosen(record, status, counted.lengths, prepared.issues, count.tokens)


@dataclass
class _Counter:
    """Counts the tokens of sets, and writes the rows of those that are text."""

    method: Method
    tokenizer: Any
    images: ImageStore
    max_length: int
    too_long: TooLong
    now: datetime
    directory: Path
    tokens: dict[SetName, Path] = field(default_factory=dict)

    def of(self, examples: Survey, taken: Mask, name: SetName) -> Counted:
        tokenize = ExampleTokenizer(
            self.method, self.tokenizer, self.max_length, self.too_long, training=name == "training", now=self.now
        )
        writer = TokenWriter(self.directory / f"{name}-tokens.arrow")
        processes = tokenizing_processes(
            sum(file.path.stat().st_size for file in examples.files), available_cpus(), available_memory()
        )
        counted = count_and_check(examples, taken, tokenize, self.images, writer.write, processes)
        writer.close()
        if writer.file.exists():
            self.tokens[name] = writer.file
        return counted


def _issue_warning(issue: QualityIssue, training: Survey) -> str:
    """How many examples have the issue, and the lines of the first ones."""
    places = [training.place(int(position)) for position in issue.positions[:SHOWN_LINES]]
    several = len(training.files) > 1
    shown = ", ".join(f"{place.uri}:{place.line}" if several else str(place.line) for place in places)
    count = len(issue.positions)
    more = f" and {count - SHOWN_LINES} more" if count > SHOWN_LINES else ""
    left_out = "; they are left out" if issue.dropped else ""
    return f"{count} training example(s) {ISSUE_TEXTS[issue.kind]}{left_out} (line {shown}{more})."


def _control_text_warnings(sets: Sequence[Survey]) -> Iterator[str]:
    for item in sets:
        count, places = item.control_texts, item.control_text_places
        if count:
            shown = ", ".join(str(place.line) for place in places) + (" ..." if count > len(places) else "")
            yield (
                f"{count} {item.name} example(s) spell a control token of the model (such as <|im_end|>) in their "
                f"texts; it is learned as text, not as the token (line {shown})."
            )


def _length_warnings(
    training: FileStatistics, validation: FileStatistics | None, left_out: int, max_length: int
) -> Iterator[str]:
    if left_out:
        yield f"{left_out} example(s) are longer than {max_length} tokens and are left out."
    for name, counts in (("training", training), ("validation", validation)):
        if counts is not None and counts.truncated:
            yield f"{counts.truncated} {name} example(s) are longer than {max_length} tokens and are cut there."
