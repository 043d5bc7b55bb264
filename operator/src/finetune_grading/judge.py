"""Models that some graders ask. The caller provides them, with address, rate limit and cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import orjson

from finetune_api.graders import GraderErrorCode, JudgeSampling
from finetune_grading.grade import RowError

_DETAILS_LENGTH = 300
T = TypeVar("T")


class StopGradingError(Exception):
    """A model will answer no question, or what it answers can't be kept: grading ends. Its cause says why."""


@dataclass(frozen=True)
class Question:
    """What a judge is asked. Equal questions may be answered from a cache."""

    messages: tuple[Mapping[str, str], ...]
    """Of `role` and `content`."""
    schema: Mapping[str, Any]
    """The JSON Schema of the reply, for a response_format."""
    sampling: JudgeSampling


@dataclass(frozen=True)
class Reply:
    """A judge's answer."""

    text: str
    refused: bool = False
    """The judge declined: `text` says why."""
    truncated: bool = False
    """It was cut off at sampling.max_tokens."""


class Judge(Protocol):
    """A model that answers questions."""

    async def ask(self, question: Question) -> Reply:
        """Raises RowError (model_grader_server_error, or another) where there is no answer, StopGradingError."""


class Embedder(Protocol):
    """A model that makes vectors of texts."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """A vector for each text. Raises RowError, StopGradingError."""


class NeverAsked:
    """For checking a spec: a model that is there, and is not asked."""

    async def ask(self, question: Question) -> Reply:
        raise NotImplementedError

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        raise NotImplementedError


async def ask_structured(judge: Judge, question: Question, read: Callable[[Mapping[str, Any]], T]) -> T:
    """What `read` makes of the reply's JSON object; it raises ValueError, which says what is wrong with it.

    A judge that does not follow the schema is asked once more, with the error.
    Raises RowError: model_grader_parse_error, or another.
    """
    reply = await _complete_reply(judge, question)
    try:
        return read(_object(reply.text))
    except ValueError as error:
        wrong = str(error)
    repair = (
        {"role": "assistant", "content": reply.text},
        {
            "role": "user",
            "content": f"That reply can't be used: {wrong} Reply again, with nothing but the JSON object.",
        },
    )
    reply = await _complete_reply(judge, replace(question, messages=(*question.messages, *repair)))
    try:
        return read(_object(reply.text))
    except ValueError as error:
        details = f"{error} The judge replied, when asked again: {reply.text[:_DETAILS_LENGTH]!r}"
        raise RowError(GraderErrorCode.MODEL_GRADER_PARSE_ERROR, details) from error


async def _complete_reply(judge: Judge, question: Question) -> Reply:
    reply = await judge.ask(question)
    if reply.refused:
        raise RowError(
            GraderErrorCode.MODEL_GRADER_REFUSAL_ERROR, f"The judge declined: {reply.text[:_DETAILS_LENGTH]}"
        )
    if reply.truncated:
        raise RowError(
            GraderErrorCode.MODEL_GRADER_EXCEEDED_MAX_TOKENS_ERROR,
            f"The judge's reply was cut off at sampling.maxTokens ({question.sampling.max_tokens}).",
        )
    return reply


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"It is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError("It is not a JSON object.")
    return value
