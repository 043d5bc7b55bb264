"""The `build-dataset` command: reads all parts of a Dataset, cleans and splits the examples, and commits a revision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from finetune_api.base import LINE_LENGTH
from finetune_api.conditions import Reason
from finetune_api.dataset import MOST_ERRORS, MOST_WARNINGS, RevisionContent, SourceFile, SplitStatus
from finetune_api.finetunejob import DatasetFindings
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_api.pod_contracts.run import DATASET_DIRECTORY, DatasetRun
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.read.data_files import DataFile, corrected, fetch_files
from finetune_trainer.data.read.reader import unread_keys
from finetune_trainer.data.revisions import fetch_split
from finetune_trainer.data.select.filters import ISSUE_TEXTS, Mask, QualityIssue
from finetune_trainer.data.select.findings import FINDINGS_NAME, store_findings
from finetune_trainer.data.select.screening import Screened, screen
from finetune_trainer.data.select.survey import Survey, survey
from finetune_trainer.dataset.choice import Choice, Examples, choose
from finetune_trainer.dataset.generation import Generated, generate
from finetune_trainer.dataset.groups import NEW_RUN, Groups, fields_of, groups_of
from finetune_trainer.dataset.prompts import GENERATED
from finetune_trainer.dataset.revision import commit_revision, find_revision, write_splits
from finetune_trainer.endpoints.screening_classifier import classifier_of
from finetune_trainer.methods.method import formats_read_as
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.commits import check_storage, claim
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.storage.storage import Storage

SHOWN = 5

_log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """The files of all parts, as one set, and the number of each file's part."""

    examples: Survey
    of_file: dict[Path, int]
    generated: Generated | None = None


def build(run: DatasetRun, directory: Path) -> DatasetReport:
    """Build and commit the revision of a run, or find what an earlier try has committed. Raises DiagnosedError."""
    storage, output = open_storage(run.storage, reports_unanswered=True), parse_location(run.output_uri)
    check_storage(storage, output)
    if (found := find_revision(storage, output)) is not None:
        return DatasetReport(revision=found)
    held = claim(storage, output, run.try_number)
    parts = read_parts(run, storage, directory)
    store_findings(storage, output, [parts.examples])
    refuse_broken(parts.examples, output)
    images = ImageStore(directory / "images", storage, tuple(run.allowed_images))
    screened = _screen(run, parts.examples, storage, images)
    with log_progress("splitting"):
        groups = groups_of(parts.examples, run.split.by)
        choice = _choose(run, parts, groups, screened)
    store_findings(storage, output, [parts.examples], choice.issues, screened)
    _refuse_empty(run, choice)
    with log_progress("writing the splits"):
        splits = write_splits(parts.examples, choice.splits, directory / "splits")
        content = _content(run, parts, choice, screened, splits)
    with log_progress("committing the revision"):
        revision = commit_revision(storage, held, content, directory / "splits")
    for warning in revision.warnings:
        _log.warning(warning)
    return DatasetReport(revision=revision, usage=[] if parts.generated is None else parts.generated.usage)


def read_parts(run: DatasetRun, storage: Storage, directory: Path) -> Parts:
    """Fetch every file of every part, and read every line; of prompts, let them be completed before.

    Raises DiagnosedError as `fetch_files` and `generate` do.
    """
    files: list[DataFile] = []
    of_file: dict[Path, int] = {}
    for number, part in enumerate(run.parts):
        with log_progress(f"fetching {part.name}"):
            mounted = Path(DATASET_DIRECTORY) / part.name
            if run.prompts_revision is not None:
                found = [fetch_split(storage, run.prompts_revision, directory / part.name / "00000").file]
            else:
                found = fetch_files(storage, part, directory / part.name, allowed=run.allowed_datasets, mounted=mounted)
        files += found
        of_file |= {file.path: number for file in found}
    generated = None
    if run.generate is not None:
        generated = generate(run, run.generate, files, storage, directory / "generated")
        files, of_file = [generated.file], {generated.file.path: 0}
    with log_progress("reading every line"):
        examples = survey("source", files, formats_read_as(run.format), run.format)
        if generated is not None:
            examples.unread.pop(GENERATED, None)
    _log.info(f"{len(examples)} examples in {len(files)} file(s), {examples.error_count} broken lines")
    return Parts(examples, of_file, generated)


def refuse_broken(examples: Survey, output: StorageLocation) -> None:
    """Raises DiagnosedError (DatasetInvalid) if any line is broken."""
    if not examples.error_count:
        return
    first = examples.errors[0]
    uri = first.uri or examples.files[0].uri
    more, place = examples.error_count - 1, output.join(FINDINGS_NAME).uri
    raise DiagnosedError(
        Reason.DATASET_INVALID,
        f"Line {first.line} of {uri}: {first.message} "
        + (f"{more} more line(s) are broken; {place} has them. " if more else "")
        + f"{_what_to_correct(examples, uri)}, {NEW_RUN}.",
        dataset=DatasetFindings(
            format=examples.format, error_count=examples.error_count, errors=examples.errors[:MOST_ERRORS]
        ),
    )


def _what_to_correct(examples: Survey, uri: str) -> str:
    if (
        examples.wrong_format is None or examples.format is not None
    ):  # Or one of several files is another than the rest.
        return corrected(uri)
    return f"Set spec.format to {examples.wrong_format}, or replace the file"


def _screen(run: DatasetRun, examples: Survey, storage: Storage, images: ImageStore) -> Screened | None:
    """What is flagged; None: nothing screens. Raises DiagnosedError (DatasetInvalid) with action Fail."""
    if run.screening is None:
        return None
    classifier = classifier_of(run, run.screening, storage, "spec.screening")
    screened = screen([examples], run.screening, classifier, images, "spec.screening")
    if run.screening.action == "Fail" and screened.status.flagged:
        output = parse_location(run.output_uri)
        store_findings(storage, output, [examples], screened=screened)
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"{' '.join(screened.sentences())} {output.join(FINDINGS_NAME).uri} has every line. Remove these lines, or "
            f"leave them out by spec.screening.action Drop, {NEW_RUN}.",
        )
    return screened


def _choose(run: DatasetRun, parts: Parts, groups: Groups, screened: Screened | None) -> Choice:
    survey = parts.examples
    numbers = (parts.of_file[file.path] for file, _ in survey.examples())
    examples = Examples(
        index=survey.example_index,
        groups=groups,
        parts=np.fromiter(numbers, np.int64, len(survey)),
        weights=[part.weight for part in run.parts],
        unwanted=None if screened is None else screened.unwanted(survey),
    )
    return choose(examples, run.prepare, run.split, run.seed)


def _refuse_empty(run: DatasetRun, choice: Choice) -> None:
    """Raises DiagnosedError (DatasetInvalid) if a split that is asked for has no example."""
    asked = {"training": True, "validation": run.split.validation_percent, "test": run.split.test_percent}
    empty = [name for name, positions in choice.splits.items() if asked[name] and not len(positions)]
    if not empty:
        return
    counts = ", ".join(f"{name} {count}" for name, count in choice.left_out.to_wire().items() if count)
    what = "document" if run.split.by is not None else "conversation"
    divided = f"There is 1 {what}" if choice.groups == 1 else f"There are {choice.groups} {what}s"
    raise DiagnosedError(
        Reason.DATASET_INVALID,
        f"No example is left for {' and '.join(empty)}. {divided} to divide (spec.split.by)"
        f"{f', and left out are: {counts}' if counts else ''}. "
        "Add examples, keep more of them (spec.prepare, spec.screening), or "
        f"change spec.split{' or the weights of spec.merge' if len(run.parts) > 1 else ''}, {NEW_RUN}.",
    )


def _content(
    run: DatasetRun, parts: Parts, choice: Choice, screened: Screened | None, splits: list[SplitStatus]
) -> RevisionContent:
    examples = parts.examples
    assert examples.format is not None, "there are examples"
    screening = None if screened is None else screened.status.model_copy(update={"usage": None})
    generated = parts.generated
    divided_by = fields_of(run.split.by)
    unread = {name: line for name, line in examples.unread.items() if name not in divided_by}
    warnings = [
        *(() if generated is None else generated.warnings),
        *(() if screened is None else screened.sentences()),
        *(_issue_warning(issue, examples) for issue in choice.issues if len(issue.positions)),
        *([unread_keys(unread)] if unread else []),
    ]
    return RevisionContent(
        example_format=examples.format,
        examples=sum(split.examples for split in splits),
        splits=splits,
        left_out=choice.left_out if any(choice.left_out.to_wire().values()) else None,
        screening=screening,
        sources=list(_sources(run, parts, choice)),
        generated=None if generated is None else generated.content,
        warnings=[text[:LINE_LENGTH] for text in warnings[:MOST_WARNINGS]],
        weights={part.name: part.weight for part in run.parts} if len(run.parts) > 1 else {},
        prepare=run.prepare,
        split=run.split,
        seed=run.seed,
    )


def _sources(run: DatasetRun, parts: Parts, choice: Choice) -> Iterator[SourceFile]:
    """Every file, and how many of its examples are in the revision; of prompts, how many completions to them."""
    taken = np.zeros(len(parts.examples), dtype=bool)
    for positions in choice.splits.values():
        taken[positions] = True
    if parts.generated is not None:
        yield from _prompt_files(run, parts.generated, taken)
        return
    counts, used = Counter[Path](), Counter[Path]()
    for position, (file, _) in enumerate(parts.examples.examples()):
        counts[file.path] += 1
        used[file.path] += int(taken[position])
    for file in parts.examples.files:
        yield SourceFile(
            uri=file.uri,
            sha256=file.sha256,
            part=run.parts[parts.of_file[file.path]].name,
            examples=counts[file.path],
            taken=used[file.path],
        )


def _prompt_files(run: DatasetRun, generated: Generated, taken: Mask) -> Iterator[SourceFile]:
    counts = Counter(generated.prompt_of)
    used = Counter(number for number, is_taken in zip(generated.prompt_of, taken, strict=True) if is_taken)
    for number, file in enumerate(generated.prompts):
        part = run.parts[0].name
        yield SourceFile(uri=file.uri, sha256=file.sha256, part=part, examples=counts[number], taken=used[number])


_TEXTS = ISSUE_TEXTS | {"leaks": "are also, or almost, in a split that is held out from theirs"}


def _issue_warning(issue: QualityIssue, examples: Survey) -> str:
    """How many examples have the issue, and the lines of the first ones."""
    shown = _lines(issue, examples)
    count = len(issue.positions)
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    left_out = "; they are left out" if issue.dropped else ""
    return f"{count} example(s) {_TEXTS[issue.kind]}{left_out} (line {', '.join(shown)}{more})."


def _lines(issue: QualityIssue, examples: Survey) -> Sequence[str]:
    places = [examples.place(int(position)) for position in issue.positions[:SHOWN]]
    return [f"{place.uri}:{place.line}" if len(examples.files) > 1 else str(place.line) for place in places]
