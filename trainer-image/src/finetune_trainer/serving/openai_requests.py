"""What a request to the OpenAI routes may ask for. What the server would not honour is refused, not ignored."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from transformers import PreTrainedTokenizerBase

_TEMPLATE_PARAMETERS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)


class TextRequest(BaseModel):
    """What both routes take."""

    model_config = ConfigDict(extra="forbid")

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    frequency_penalty: float | None = Field(None, ge=0, le=2)
    stop: str | list[str] | None = Field(None, max_length=4096)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    stream: bool | None = None
    # Sent by clients as a matter of course. They change nothing here.
    n: Literal[1, None] = None
    presence_penalty: Literal[0, None] = None
    user: str | None = None
    stream_options: dict[str, Any] | None = None

    def to_handler(self) -> dict[str, Any]:
        """The body for the handler of `transformers serve`."""
        unused = {"n", "presence_penalty", "user", "stream_options"}
        return self.model_dump(exclude_none=True, exclude=unused)


class Message(BaseModel):
    """One message. Its content is text, or parts of text; images and audio are refused."""

    model_config = ConfigDict(extra="forbid")

    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class TextPart(BaseModel):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatRequest(TextRequest):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", None] = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | None = None
    logprobs: Literal[False, None] = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    chat_template_kwargs: dict[str, bool | int | float | str] | None = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _only_variables(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """Variables of the chat template, but nothing that replaces it or what is rendered."""
        if reserved := _TEMPLATE_PARAMETERS & set(value or {}):
            raise ValueError(f"may not set {', '.join(sorted(reserved))}")
        return value

    def to_handler(self) -> dict[str, Any]:
        unused = {"tool_choice", "parallel_tool_calls", "response_format", "logprobs", "metadata", "store"}
        body = {key: value for key, value in super().to_handler().items() if key not in unused}
        # The newer name of max_tokens, which the handler does not know.
        if "max_completion_tokens" in body:
            body["max_tokens"] = body.pop("max_completion_tokens")
        return body


class TextFormat(BaseModel):
    """The one response format there is."""

    type: Literal["text"]


class CompletionRequest(TextRequest):
    """POST /v1/completions."""

    prompt: str = Field(min_length=1)
