"""The requests of the OpenAI routes. What the server does not support is refused, not ignored.

Types are strict, as OpenAI's are: `"24"` is no integer. A body is megabytes of whatever a client likes, and the server
validates it while all streams wait: so validation ends at the first error of a list (fail_fast), and no object has more
than MOST_FIELDS.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from finetune_trainer.serving.response_format import ResponseFormat, Strict, few_fields

MOST_STOPS = 4
LONGEST_STOP = 256
LEAST_TEMPERATURE = 0.01
"""Of those above 0: with less, logits divided by it overflow."""
MOST_MESSAGES = 10_000
MOST_TOOLS = 128
MOST_CHOICES = 16
MOST_TOP_LOGPROBS = 20
MOST_COMPLETION_LOGPROBS = 5

_RESERVED = frozenset(
    {
        *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters,
        *inspect.signature(render_jinja_template).parameters,
        *("messages", "raise_exception", "strftime_now", "range", "dict", "lipsum", "cycler", "joiner", "namespace"),
    }
)
"""What transformers and Jinja give to a chat template themselves, in addition to the tokenizer's special tokens."""

Variable = bool | int | float | str
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(Strict):
    """How a stream ends."""

    include_usage: bool = False


class Lenient(Strict):
    """An object in which null stands for what is absent, as OpenAI's SDK writes it (`model_dump`), whatever the key."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class TextRequest(Lenient):
    """The fields of both routes."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    stop: Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True), BeforeValidator(_as_list)] | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    user: str | None = None  # sent by clients as a matter of course; it changes nothing here

    @field_validator("temperature")
    @classmethod
    def _warm_enough(cls, value: float | None) -> float | None:
        if value and value < LEAST_TEMPERATURE:
            raise ValueError(f"must be 0 (greedy), or at least {LEAST_TEMPERATURE}")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return tuple(self.stop or ())


class TextPart(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(Lenient):
    """One message. Its content is text, or parts of text; images and audio are refused.

    Roles and calls are checked further by what reads the messages of datasets.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _text_only(cls, value: Any) -> Any:
        """Refuse other parts by their kind, which the union's own error does not name."""
        for part in value if isinstance(value, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                what = {"image_url": "images", "input_audio": "sounds"}.get(kind, f"parts of type {kind[:40]!r}")
                raise ValueError(f"{what} are not supported: this server takes text, or parts of type 'text'")
        return value

    @field_validator("tool_calls")
    @classmethod
    def _no_calls(cls, value: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        """Accept an empty list: other servers write it for an answer without calls, and clients send it back."""
        return value or None


class Tool(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    function: dict[str, Any]

    @field_validator("function")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name"), str):
            raise ValueError("has no name")
        return value


class ChatRequest(TextRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: Literal["auto", "none", None] = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    metadata: Annotated[dict[str, str], BeforeValidator(few_fields)] | None = None
    store: bool | None = None
    chat_template_kwargs: Annotated[dict[str, Variable], BeforeValidator(few_fields)] | None = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _only_variables(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """Allow variables of the chat template, but nothing that replaces the template or its inputs."""
        names = set(value or {})
        if reserved := (_RESERVED & names) | {name for name in names if name.endswith(("_token", "_tokens"))}:
            raise ValueError(f"may not set {', '.join(sorted(reserved))}")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.schema_of_answer is not None and self.offered_tools:
            raise ValueError(
                "response_format constrains the whole answer, so that the model could not call the tools; send one of "
                "both, or tool_choice: none"
            )
        return self

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens to report beside each one; None without log probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the answer has to match, if any."""
        return None if self.response_format is None else self.response_format.schema_of_answer

    @property
    def offered_tools(self) -> list[dict[str, Any]]:
        """The tools that are offered to the model."""
        return [] if self.tool_choice == "none" else [tool.model_dump() for tool in self.tools or []]


class CompletionRequest(TextRequest):
    """POST /v1/completions."""

    prompt: str = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=MOST_COMPLETION_LOGPROBS)

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens to report beside each one; None without log probabilities."""
        return self.logprobs
