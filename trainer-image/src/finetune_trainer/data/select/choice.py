"""Selects the examples of a run: fetches the files, reads every line, and chooses.

Preflight does this; the training Pods take what it recorded (dataset_record.py). What a Dataset has read, cleaned and
compared before is not read and compared once more: only what depends on the model is left, the tokens of each example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from finetune_api.dataset import RevisionContent
from finetune_api.dataset_reference import PinnedRevisions
from finetune_api.finetunejob import Dataset, DatasetFindings, DatasetSource, FileStatistics
from finetune_api.pod_contracts.run import DATASET_DIRECTORY
from finetune_trainer.data.encode.token_files import TokenWriter
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.read.data_files import DataFile, fetch_files
from finetune_trainer.data.read.formats import Format, MethodFormats
from finetune_trainer.data.read.reader import unread_keys
from finetune_trainer.data.revisions import RevisionSplit, fetch_split
from finetune_trainer.data.select.dataset_record import DatasetRecord, RecordedSet
from finetune_trainer.data.select.filters import (
    ISSUE_TEXTS,
    Mask,
    Prepared,
    QualityIssue,
    Unwanted,
    prepare,
    prepare_known,
)
from finetune_trainer.data.select.screening import Screened
from finetune_trainer.data.select.survey import SetName, Survey, survey
from finetune_trainer.data.select.token_counts import Counted, count_and_check
from finetune_trainer.data.select.tokenizing import ExampleTokenizer, TooLong, tokenizing_processes
from finetune_trainer.methods.method import Method, formats_read_as
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
    findings: Sequence[str] = ()
    """Warnings of the Dataset, where its findings are taken over."""

    @property
    def sets(self) -> list[Survey]:
        """Those that are there."""
        return [self.training] if self.validation is None else [self.training, self.validation]


@dataclass(frozen=True)
class Chosen:
    """The examples that were chosen, with statistics and warnings for the job's status."""

    record: DatasetRecord
    status: DatasetFindings
    lengths: Sequence[int]
    """Tokens of each sequence of the training set, in order."""
    issues: tuple[QualityIssue, ...]
    tokens: Mapping[SetName, Path]
    """The rows of each set, compressed (token_files.py); none of a model that reads images."""


def mounted(name: SetName) -> Path:
    """The path at which a set's ConfigMap is mounted, if it has one."""
    return Path(DATASET_DIRECTORY) / name


def survey_dataset(
    storage: Storage,
    dataset: Dataset,
    method: MethodFormats,
    directory: Path,
    allowed: Sequence[str],
    revisions: PinnedRevisions | None = None,
) -> Surveyed:
    """Fetch both sets, and read every line of those that no Dataset has read for such a job before.

    Raises DiagnosedError as `fetch_files` and `fetch_split` do.
    """
    splits = _fetch_splits(storage, revisions, directory)
    if "training" in splits and _is_known(dataset, method, splits["training"], splits.get("validation")):
        known = {name: _known_survey(name, split, method) for name, split in splits.items()}
        for name, split in splits.items():
            _log.info(f"{name} set: {split.examples} examples, as Dataset {split.pinned.name} has checked them")
        return Surveyed(known["training"], known.get("validation"), _findings_of(splits["training"]))

    def fetch(name: SetName, source: DatasetSource) -> list[DataFile]:
        if name in splits:
            return [splits[name].file]
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


def _fetch_splits(storage: Storage, revisions: PinnedRevisions | None, directory: Path) -> dict[SetName, RevisionSplit]:
    """The sets that are splits of Datasets."""
    pinned = revisions or PinnedRevisions()
    found: dict[SetName, RevisionSplit] = {}
    sets: tuple[SetName, SetName] = ("training", "validation")
    for name, one in zip(sets, (pinned.training, pinned.validation), strict=True):
        if one is not None:
            with log_progress(f"fetching the {name} set from Dataset {one.name}"):
                found[name] = fetch_split(storage, one, directory / name / "00000")
    return found


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
    prepared = _prepare(surveyed, dataset, seed, screened)
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
    status = DatasetFindings(
        format=training.format,
        training=counted.statistics,
        validation=held_out,
        dropped=dropped if any(dropped.to_wire().values()) else None,
        screening=None if screened is None else screened.status,
        warnings=[
            *surveyed.findings,
            *(() if screened is None else screened.sentences()),
            *(_issue_warning(issue, training) for issue in prepared.issues if len(issue.positions)),
            *_length_warnings(counted.statistics, held_out, left_out, max_length),
            *(f"{item.name.capitalize()} set: {unread_keys(item.unread)}" for item in surveyed.sets if item.unread),
            *_control_text_warnings(surveyed.sets),
        ],
    )
    return Chosen(record, status, counted.lengths, prepared.issues, count.tokens)


def _prepare(surveyed: Surveyed, dataset: Dataset, seed: int, screened: Screened | None) -> Prepared:
    training, validation = surveyed.training, surveyed.validation
    if training.known is not None:
        return prepare_known(dataset, training.known, None if validation is None else validation.known, seed)
    with log_progress("looking for duplicates, conflicts and leaks"):
        unwanted = Unwanted()
        if screened is not None:
            unwanted = Unwanted(screened.unwanted(training), screened.unwanted(validation))
        own_index = None if validation is None else validation.example_index
        return prepare(dataset, training.example_index, own_index, seed, unwanted)


def _is_known(
    dataset: Dataset, method: MethodFormats, training: RevisionSplit, validation: RevisionSplit | None
) -> bool:
    """Whether the Dataset's findings hold for this job: another reading of the lines could find nothing else.

    Both sets are of one revision, whose splits the Dataset has compared with each other, and the job reads the lines as
    the Dataset did, leaves out nothing that the Dataset has kept, and holds out nothing itself.
    """
    if dataset.screening is not None:
        return False
    if dataset.validation is not None and (validation is None or validation.pinned.digest != training.pinned.digest):
        return False
    content = training.content
    return _is_read_alike(content.example_format, dataset.format, method) and _drops_no_more(dataset, content)


def _known_survey(name: SetName, split: RevisionSplit, method: MethodFormats) -> Survey:
    """The set without a look at its lines: each is an example, as the Dataset found."""
    return Survey(name, [split.file], method, split.content.example_format, known=split.examples)


def _findings_of(split: RevisionSplit) -> list[str]:
    """The warnings of the Dataset, as warnings of the job that takes them over."""
    return [f"Dataset {split.pinned.name}: {warning}" for warning in split.content.warnings]


def _is_read_alike(found: Format, asked: Format | None, method: MethodFormats) -> bool:
    """Whether the method takes the lines for what the Dataset took them: some lines are of two formats."""
    if asked not in (None, found) or found not in method.learned:
        return False
    read_as = formats_read_as(found)
    return read_as is None or read_as.method == method.method


def _drops_no_more(dataset: Dataset, content: RevisionContent) -> bool:
    asked, done = dataset.prepare, content.prepare
    pairs = (
        (asked.duplicates, done.duplicates),
        (asked.near_duplicates, done.near_duplicates),
        (asked.conflicts, done.conflicts),
        (asked.leaks, done.leaks),
    )
    return all(job == "Keep" or before == "Drop" for job, before in pairs)


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
