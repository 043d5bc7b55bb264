"""OpenAI's graders, as far as they are translated.

Unknown fields are kept, so that they can be reported.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Document(BaseModel):
    """An object of OpenAI's."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)

    @property
    def unknown(self) -> list[str]:
        """The names of its unknown fields."""
        return sorted(self.__pydantic_extra__ or {})


class Message(Document):
    """Of a grader or of a prompt's template."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Any
    type: Literal["message"] | None = None


class Sampling(Document):
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


class _Criterion(Document):
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


class Python(_Criterion):
    type: Literal["python"]
    source: str
    image_tag: str | None = None
    """Of OpenAI's images: the trainer's has its own packages."""


class Multi(_Criterion):
    type: Literal["multi"]
    graders: dict[str, Any]
    calculate_output: str


Criterion = StringCheck | TextSimilarity | ScoreModel | LabelModel | Python | Multi
CRITERIA: dict[str, type[Criterion]] = {
    "string_check": StringCheck,
    "text_similarity": TextSimilarity,
    "score_model": ScoreModel,
    "label_model": LabelModel,
    "python": Python,
    "multi": Multi,
}
