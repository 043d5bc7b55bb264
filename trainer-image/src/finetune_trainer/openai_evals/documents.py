"""What OpenAI's Evals API returns, as far as it is translated: evals, runs and graders.

Unknown fields are kept, so that they can be told of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_api.base import problems
from finetune_grading.exact_json import parse_json
from finetune_trainer.data.read.jsonl import repeated_key
from finetune_trainer.openai_evals.findings import ImportRefusedError

MOST_BYTES = 64 * 2**20
"""Of an eval or a run; data in files of their own may be of any size."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)

    @property
    def unknown(self) -> list[str]:
        return sorted(self.__pydantic_extra__ or {})


Read = TypeVar("Read", bound=_Document)


class Message(_Document):
    """Of a grader or of a prompt's template."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Any
    type: Literal["message"] | None = None


class Sampling(_Document):
    """sampling_params, of a grader or of a run."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_completion_tokens: int | None = None
    max_completions_tokens: int | None = None
    """As OpenAI's graders spell it."""
    tools: list[dict[str, Any]] | None = None

    @property
    def max_tokens(self) -> int | None:
        return self.max_completion_tokens if self.max_completions_tokens is None else self.max_completions_tokens


class _Criterion(_Document):
    id: str | None = None
    name: str
    pass_threshold: float | None = None


class StringCheck(_Criterion):
    type: Literal["string_check"]
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarity(_Criterion):
    type: Literal["text_similarity"]
    input: str
    reference: str
    evaluation_metric: Literal[
        "cosine",
        "fuzzy_match",
        "bleu",
        "gleu",
        "meteor",
        "rouge_1",
        "rouge_2",
        "rouge_3",
        "rouge_4",
        "rouge_5",
        "rouge_l",
    ]


class ScoreModel(_Criterion):
    type: Literal["score_model"]
    model: str
    input: list[Message]
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    sampling_params: Sampling | None = None


class LabelModel(_Criterion):
    type: Literal["label_model"]
    model: str
    input: list[Message]
    labels: list[str]
    passing_labels: list[str]
    sampling_params: Sampling | None = None


class Multi(_Criterion):
    type: Literal["multi"]
    graders: dict[str, Any]
    calculate_output: str


Criterion = StringCheck | TextSimilarity | ScoreModel | LabelModel | Multi
CRITERIA: dict[str, type[Criterion]] = {
    "string_check": StringCheck,
    "text_similarity": TextSimilarity,
    "score_model": ScoreModel,
    "label_model": LabelModel,
    "multi": Multi,
}


class Eval(_Document):
    """An eval. Its criteria are read one by one, so that every fault of them is told."""

    id: str | None = None
    name: str | None = None
    testing_criteria: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Source(_Document):
    """What populates `item`."""

    type: str
    content: list[Any] | None = None
    id: str | None = None


class InputMessages(_Document):
    """The prompt: messages with templates, or a field of the item that holds messages."""

    type: Literal["template", "item_reference"]
    template: list[Message] | None = None
    item_reference: str | None = None


class DataSource(_Document):
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
        raise ImportRefusedError([f"{file} is no JSON: {error}."]) from error
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
