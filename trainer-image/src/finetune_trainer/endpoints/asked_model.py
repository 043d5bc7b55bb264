"""A model of the class as graders ask it: a judge, and a maker of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import RowError
from finetune_grading.judge import Question, Reply
from finetune_trainer.endpoints.endpoint import Endpoint

CHAT = "chat/completions"
EMBEDDINGS = "embeddings"


class AskedModel:
    """Judge and Embedder of finetune_grading, over OpenAI's routes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def ask(self, question: Question) -> Reply:
        """Raises RowError, StopGradingError."""
        sampling = question.sampling
        body = {
            "messages": [dict(message) for message in question.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "max_completion_tokens": sampling.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "grade", "strict": True, "schema": question.schema},
            },
        }
        answer = await self.endpoint.post(CHAT, body, is_completion)
        choice = answer.body["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content") or "", message.get("refusal")
        if isinstance(refusal, str) and refusal:
            return Reply(refusal, refused=True)
        return Reply(text, refused=reason == "content_filter", truncated=reason == "length")

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises RowError, StopGradingError."""
        body = {"input": list(texts), "encoding_format": "float"}
        answer = await self.endpoint.post(EMBEDDINGS, body, lambda found: isinstance(found.get("data"), list))
        vectors = _vectors(answer.body["data"])
        if vectors is None or len(vectors) != len(texts):
            message = f"The model {self.endpoint.config.name!r} did not answer with an embedding for each text."
            raise RowError(GraderErrorCode.MODEL_GRADER_PARSE_ERROR, message)
        return vectors


def is_completion(body: Mapping[str, Any]) -> bool:
    """Whether it is what OpenAI's chat/completions answers with."""
    match body:
        case {"choices": [{"message": {"content": str() | None}}, *_]}:
            return True
        case {"choices": [{"message": {"refusal": str()}}, *_]}:
            return True
    return False


def _vectors(data: Sequence[Any]) -> list[list[float]] | None:
    """The vectors in the order of the texts; None where something else is among them."""
    try:
        found = [item["embedding"] for item in sorted(data, key=lambda item: item["index"])]
    except (KeyError, TypeError):
        return None
    if all(isinstance(one, list) and all(_is_number(number) for number in one) for one in found):
        return found
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
