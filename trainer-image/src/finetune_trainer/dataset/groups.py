"""Which examples stay together in one split: those of a document, or of a conversation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finetune_api.conditions import Reason
from finetune_grading.exact_json import parse_json
from finetune_grading.sample import MissingVariableError, Sample
from finetune_grading.templates import render, variables
from finetune_trainer.data.read.data_files import DataFile, corrected
from finetune_trainer.data.read.examples import ChatExample, Example, digest
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.messages import Messages, User, to_template
from finetune_trainer.data.read.records import read_records
from finetune_trainer.data.select.survey import Survey
from finetune_trainer.process.failures import DiagnosedError

Groups = NDArray[np.uint64]
"""For each example the hash of what it belongs to."""
NEW_RUN = "and change spec.runId"


def groups_of(survey: Survey, by: str | None) -> Groups:
    """The group of each example: by this template, or by its conversation. Raises DiagnosedError (DatasetInvalid)."""
    keys = (conversation(item.example) for _, item in survey.examples()) if by is None else _rendered(survey, by)
    return np.fromiter((int.from_bytes(digest(key, size=8), "big") for key in keys), np.uint64, len(survey))


def fields_of(by: str | None) -> frozenset[str]:
    """The fields of an example that this template reads."""
    return frozenset(name.split(".")[1] for name in variables(by or "") if name.startswith("item."))


def records(survey: Survey) -> Iterator[tuple[DataFile, bytes]]:
    """The record of each example as it was read, in their order: a line of JSON, with all of its fields."""
    for file in survey.files:
        for item in read_records(file.path):
            assert not isinstance(item, LineError), "a set with broken lines is refused"
            yield file, item[1].strip()


def conversation(example: Example) -> object:
    """How the example begins, up to the user's first message: the turns of one conversation all begin so."""
    begin: str | Messages = example.messages if isinstance(example, ChatExample) else example.prompt
    if isinstance(begin, str):
        return begin
    first = next((at for at, message in enumerate(begin) if isinstance(message, User)), len(begin))
    return to_template(begin[: first + 1])


def _rendered(survey: Survey, by: str) -> Iterator[str]:
    for position, (_, line) in enumerate(records(survey)):
        try:
            item = parse_json(line.decode())
            yield render(by, item, Sample(""))
        except (MissingVariableError, ValueError) as error:
            place = survey.place(position)
            raise DiagnosedError(
                Reason.DATASET_INVALID,
                f"Line {place.line} of {place.uri}: spec.split.by can't be rendered: {error} {corrected(place.uri)}, "
                f"{NEW_RUN}; or split by another field.",
            ) from error
