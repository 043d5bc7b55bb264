"""The grader EmbeddingSimilarity: OpenAI's text_similarity with cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.graders import GraderErrorCode
from finetune_api.model_graders import EmbeddingSimilarity, ModelGrader
from finetune_grading.compiled import InvalidGraderError, RowsGrader, item_variables
from finetune_grading.grade import Grade, GradeError, RowError, Scored, unexpected
from finetune_grading.judge import Embedder
from finetune_grading.sample import Row
from finetune_grading.templates import render

TEXTS_PER_REQUEST = 64


@dataclass(frozen=True)
class EmbeddingGrader(RowsGrader):
    """It asks for the vectors of many texts at once, and of equal texts once."""

    spec: EmbeddingSimilarity
    embedder: Embedder

    async def grade(self, rows: Sequence[Row]) -> list[Grade]:
        pairs = [self._texts(row) for row in rows]
        vectors = await self._embed([text for pair in pairs if not isinstance(pair, GradeError) for text in pair])
        return [
            Grade.errored(pair) if isinstance(pair, GradeError) else self._grade(vectors[pair[0]], vectors[pair[1]])
            for pair in pairs
        ]

    def _texts(self, row: Row) -> tuple[str, str] | GradeError:
        try:
            return tuple(render(text, row.item, row.sample) for text in (self.spec.input, self.spec.reference))  # type: ignore[return-value]
        except RowError as error:
            return error.error
        except Exception as error:
            return unexpected(error)

    def _grade(self, one: Sequence[float] | GradeError, other: Sequence[float] | GradeError) -> Grade:
        for vector in (one, other):
            if isinstance(vector, GradeError):
                return Grade.errored(vector)
        try:
            return Grade.of(Scored(max(0.0, cosine(one, other))), self.pass_threshold)  # type: ignore[arg-type]
        except ValueError as error:
            return Grade.errored(GradeError(GraderErrorCode.MODEL_GRADER_PARSE_ERROR, f"The embedding: {error}"))

    async def _embed(self, texts: Sequence[str]) -> dict[str, Sequence[float] | GradeError]:
        """The vector of each text, or why there is none."""
        found: dict[str, Sequence[float] | GradeError] = {}
        distinct = list(dict.fromkeys(texts))
        for start in range(0, len(distinct), TEXTS_PER_REQUEST):
            batch = distinct[start : start + TEXTS_PER_REQUEST]
            try:
                found |= dict(zip(batch, await self.embedder.embed(batch), strict=True))
            except RowError as error:
                found |= dict.fromkeys(batch, error.error)
            except Exception as error:
                found |= dict.fromkeys(batch, unexpected(error))
        return found


def compile_embedding_similarity(
    grader: ModelGrader, pass_threshold: float, embedders: Mapping[str, Embedder]
) -> EmbeddingGrader:
    """Raises InvalidGraderError."""
    spec = grader.embedding_similarity
    assert spec is not None, "a union's required member"
    fields = item_variables(grader.name, {"input": spec.input, "reference": spec.reference})
    if spec.embedder not in embedders:
        known = ", ".join(sorted(embedders)) or "none"
        raise InvalidGraderError(grader.name, f"there is no embedding model {spec.embedder!r}. There are: {known}.")
    return EmbeddingGrader(grader.name, pass_threshold, fields, spec, embedders[spec.embedder])


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Raises ValueError for vectors that have no angle between them."""
    if len(one) != len(other):
        raise ValueError("two texts have vectors of different lengths.")
    lengths = math.hypot(*one) * math.hypot(*other)
    if not math.isfinite(lengths) or lengths == 0:
        raise ValueError("a vector has no direction.")
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths
