"""Reads every line of a dataset once: collects errors, and indexes the valid examples."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetError, DatasetFindings
from finetune_trainer.data.read.data_files import DataFile, corrected
from finetune_trainer.data.read.formats import Format, MethodFormats, WrongFormat
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import LEAST_TRAINING_EXAMPLES, NumberedExample, read_examples, too_few_examples
from finetune_trainer.data.select.quality import ExampleIndex
from finetune_trainer.process.failures import DiagnosedError

SetName = Literal["training", "validation", "source"]
"""`source`: what a Dataset is made of, before it is split."""

LISTED_ERRORS = 20
KEPT_ERRORS = 10_000
SHOWN_PLACES = 5
MESSAGE_LENGTH = 1000


FOR_THIS_MODEL = (
    "The model's chat template does not take such lines: name another model, or the same one with another template, "
    "with a changed spec.runId. Or change the lines: the file is checked again automatically."
)


@dataclass(frozen=True)
class Place:
    """The file (URI) and line (from 1) of an example."""

    uri: str
    line: int


@dataclass
class Survey:
    """What was read of one set."""

    name: SetName
    files: Sequence[DataFile]
    method: MethodFormats | None = None
    format: Format | None = None
    unread: dict[str, int] = field(default_factory=dict)
    """Keys that are ignored, each with the first line that has it."""
    example_index: ExampleIndex = field(default_factory=ExampleIndex)
    error_count: int = 0
    errors: list[DatasetError] = field(default_factory=list)
    """The first KEPT_ERRORS of them."""
    of_model: bool = False
    """Whether some errors are the chat template's: another model or template would accept the lines."""
    wrong_format: Format | None = None
    """That of the first file in another format than is asked for."""
    control_texts: int = 0
    """Examples that spell a control token of the model in a text."""
    control_text_places: list[Place] = field(default_factory=list)
    known: int | None = None
    """The number of its examples, if it is a split of a Dataset, which has read every line: nothing is indexed then."""
    _lines: array[int] = field(default_factory=lambda: array("I"))
    _starts: list[int] = field(default_factory=list)
    """Of each file the position of its first example."""

    def __len__(self) -> int:
        return len(self.example_index) if self.known is None else self.known

    def place(self, position: int) -> Place:
        """The place of the example at a position."""
        if self.known is not None:
            return Place(self.files[0].uri, position + 1)
        return Place(self.files[bisect_right(self._starts, position) - 1].uri, self._lines[position])

    def note_control_text(self, position: int) -> None:
        """Count an example that spells a control token; the first ones are named."""
        self.control_texts += 1
        if self.control_texts <= SHOWN_PLACES:
            self.control_text_places.append(self.place(position))

    def add_error(self, uri: str, line: int, message: str, *, of_model: bool = False) -> None:
        """Add an error of a line. `of_model`: the model's chat template can't render it."""
        self.of_model = self.of_model or of_model
        self.error_count += 1
        if len(self.errors) < KEPT_ERRORS:
            named = uri if len(self.files) > 1 else None
            self.errors.append(DatasetError(file=self.name, uri=named, line=line, message=message[:MESSAGE_LENGTH]))

    def examples(self) -> Iterator[tuple[DataFile, NumberedExample]]:
        """The examples, in their order, read again."""
        for file in self.files:
            for item in read_examples(file.path, self.method):
                if isinstance(item, NumberedExample):
                    yield file, item
                elif self.known is not None:
                    raise DiagnosedError(
                        Reason.DATASET_INVALID,
                        f"Line {item.line} of {file.uri}: {item.message} The Dataset was built by another version, "
                        "which accepted it. Build it again (its spec.runId), then change spec.runId here.",
                    )


def survey(
    name: SetName, files: Sequence[DataFile], method: MethodFormats | None = None, expected: Format | None = None
) -> Survey:
    """Read every line of a set, whose files are all of one format (`expected`, where that is known)."""
    found = Survey(name, files, method)
    for file in files:
        found._starts.append(len(found))
        for item in read_examples(file.path, method, expected or found.format):
            if isinstance(item, LineError):
                found.add_error(file.uri, item.line, item.message)
                if isinstance(item, WrongFormat):
                    found.wrong_format = found.wrong_format or item.found
            else:
                found.format = found.format or item.example.format
                found.example_index.add(item.example)
                found._lines.append(item.line)
                for key in item.unread:
                    found.unread.setdefault(key, item.line)
    return found


def refuse_invalid(surveys: Sequence[Survey]) -> None:
    """Raises DiagnosedError (DatasetInvalid), with the broken lines, when there are any; or too few to train on."""
    formats = [survey.format for survey in surveys if survey.format is not None]
    errors = [error for survey in surveys for error in survey.errors]
    if not errors:
        _refuse_too_few(surveys)
        return
    count = sum(survey.error_count for survey in surveys)
    first = errors[0]
    uri = first.uri or next(survey.files[0].uri for survey in surveys if survey.name == first.file)
    of_model = any(survey.of_model for survey in surveys)
    raise DiagnosedError(
        Reason.DATASET_INVALID,
        f"Invalid file format. Line {first.line} of the {first.file} file {uri}: {first.message} "
        + (f"{count - 1} more line(s) are broken. " if count > 1 else "")
        + (FOR_THIS_MODEL if of_model else f"{_what_to_correct(surveys, uri)}: it is checked again automatically."),
        dataset=DatasetFindings(
            format=formats[0] if formats else None, error_count=count, errors=errors[:LISTED_ERRORS]
        ),
    )


def _what_to_correct(surveys: Sequence[Survey], uri: str) -> str:
    """The method, where every file is right for another one; otherwise the lines."""
    found, method = surveys[0].wrong_format, surveys[0].method
    if found is None or method is None or found in method.learned or any(one.format is not None for one in surveys):
        return corrected(uri)
    fitting = " or ".join(method.fitting(found))
    return f"Set spec.method.type to {fitting} with a changed spec.runId, or replace the file"


def _refuse_too_few(surveys: Sequence[Survey]) -> None:
    """No line is broken, so that none is named."""
    for one in surveys:
        if one.name == "training" and len(one) < LEAST_TRAINING_EXAMPLES:
            raise DiagnosedError(
                Reason.DATASET_INVALID,
                f"{too_few_examples(len(one))} Add examples to {one.files[0].uri}"
                + (" or another file of it" if len(one.files) > 1 else "")
                + " and upload it again: it is checked again automatically.",
                dataset=DatasetFindings(format=one.format),
            )


def refuse_nothing_left(status: DatasetFindings) -> None:
    """Raises DiagnosedError (DatasetInvalid) when no example of a set was chosen."""
    for name, counts in (("training", status.training), ("validation", status.validation)):
        if counts is not None and not counts.examples:
            raise DiagnosedError(
                Reason.DATASET_INVALID,
                f"No {name} example is left. See status.dataset.dropped, dataset.prepare and limit.",
                dataset=status,
            )
