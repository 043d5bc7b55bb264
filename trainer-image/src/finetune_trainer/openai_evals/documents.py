"""What OpenAI's Evals API returns, as far as it is translated: evals and runs.

Unknown fields are kept, so that they can be reported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from finetune_api.base import problems
from finetune_grading.exact_json import parse_json
from finetune_grading.openai_graders.documents import Document, Message, Sampling
from finetune_grading.openai_graders.findings import ImportRefusedError
from finetune_trainer.data.read.jsonl import repeated_key

MOST_BYTES = 64 * 2**20
"""Of an eval or a run; data in files of their own may be of any size."""


Read = TypeVar("Read", bound=Document)


class Eval(Document):
    """An eval. Its criteria are read one by one, so that all their faults are reported."""

    id: str | None = None
    name: str | None = None
    testing_criteria: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Source(Document):
    """What populates `item`."""

    type: str
    content: list[Any] | None = None
    id: str | None = None


class InputMessages(Document):
    """The prompt: messages with templates, or a field of the item that holds messages."""

    type: Literal["template", "item_reference"]
    template: list[Message] | None = None
    item_reference: str | None = None


class DataSource(Document):
    """What a run evaluates."""

    type: str
    source: Source
    input_messages: InputMessages | None = None
    model: str | None = None
    sampling_params: Sampling | None = None


def read_eval(file: Path) -> Eval:
    """The eval in a file. Raises ImportRefusedError."""
    return _model(Eval, _only(_read_object(file), str(file), "eval"), str(file))


def read_data_source(file: Path) -> DataSource:
    """The data source in the file of a run, or a data source by itself. Raises ImportRefusedError."""
    run = _only(_read_object(file), str(file), "run")
    return _model(DataSource, run.get("data_source", run), str(file))


def _read_object(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ImportRefusedError(
                [f"{file} is larger than {MOST_BYTES // 2**20} MiB. Save its data as JSON Lines (--data)."]
            )
        text = file.read_text(encoding="utf-8-sig")
        value = parse_json(text)
    except OSError as error:
        raise ImportRefusedError([f"{file} can't be read: {error.strerror}."]) from error
    except ValueError as error:
        raise ImportRefusedError([f"{file} is not JSON: {error}."]) from error
    if (repeated := repeated_key(text)) is not None:
        raise ImportRefusedError([f"{file}: {repeated}"])
    if not isinstance(value, dict):
        raise ImportRefusedError([f"{file}: a JSON object is expected, as the Evals API returns it."])
    return value


def _only(value: dict[str, Any], file: str, what: str) -> dict[str, Any]:
    """The one object of a page of a list; any other object as it is."""
    if value.get("object") != "list":
        return value
    data = value.get("data")
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], dict):
        count = len(data) if isinstance(data, list) else 0
        raise ImportRefusedError(
            [f"{file} is a list of {count} objects. Save one {what} of them, for example: jq '.data[0]' {file}"]
        )
    return data[0]


def _model(model: type[Read], value: Any, file: str) -> Read:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ImportRefusedError([f"{file}: {problems(error)}"]) from error
