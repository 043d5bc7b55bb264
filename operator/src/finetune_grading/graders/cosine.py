"""The grader TextSimilarity with the metric Cosine, which an embedding model of the class is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune_api.graders import Grader, GraderErrorCode, TextSimilarity
from finetune_grading.grade import Grade, GradeError, RowError, Scored, unexpected
from finetune_grading.graders.comparison import compared_variables
from finetune_grading.graders.interface import InvalidGraderError, RowsGrader
from finetune_grading.judge import Embedder, StopGradingError
from finetune_grading.sample import Row
from finetune_grading.templates import render

TEXTS_PER_REQUEST = 64


@dataclass(frozen=True)
class CosineGrader(RowsGrader):
    """It asks for the vectors of many texts at once, and of equal texts once."""

    spec: TextSimilarity
    embedder: Embedder

    async def grade(self, rows: Sequence[Row], on_row: Callable[[], None] = lambda: None) -> list[Grade]:
        pairs = [self._texts(row) for row in rows]
        written = [pair for pair in pairs if not isinstance(pair, GradeError) and not _is_blank(pair)]
        vectors = await self._embed([text for pair in written for text in pair])
        grades = [self._grade(pair, vectors) for pair in pairs]
        for _ in grades:
            on_row()
        return grades

    def _texts(self, row: Row) -> tuple[str, str] | GradeError:
        try:
            return tuple(render(text, row.item, row.sample) for text in (self.spec.input, self.spec.reference))  # type: ignore[return-value]
        except RowError as error:
            return error.error
        except Exception as error:
            return unexpected(error)

    def _grade(self, pair: tuple[str, str] | GradeError, vectors: Mapping[str, Sequence[float] | GradeError]) -> Grade:
        if isinstance(pair, GradeError):
            return Grade.errored(pair)
        if _is_blank(pair):
            return Grade.of(Scored(float(pair[0] == pair[1])), self.pass_threshold)
        one, other = vectors[pair[0]], vectors[pair[1]]
        if isinstance(one, GradeError):
            return Grade.errored(one)
        if isinstance(other, GradeError):
            return Grade.errored(other)
        try:
            return Grade.of(Scored(max(0.0, cosine(one, other))), self.pass_threshold)
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
            except StopGradingError:
                raise
            except Exception as error:
                found |= dict.fromkeys(batch, unexpected(error))
        return found


def compile_cosine(grader: Grader, pass_threshold: float, embedders: Mapping[str, Embedder]) -> CosineGrader:
    """Raises InvalidGraderError."""
    spec = grader.text_similarity
    assert spec is not None and spec.model is not None, "metric Cosine requires both"
    fields = compared_variables(grader.name, spec)
    if spec.model not in embedders:
        known = ", ".join(sorted(embedders)) or "none"
        raise InvalidGraderError(grader.name, f"there is no model {spec.model!r}. There are: {known}.")
    return CosineGrader(grader.name, pass_threshold, fields, spec, embedders[spec.model])


def _is_blank(pair: tuple[str, str]) -> bool:
    """Whether one text has nothing to embed: APIs refuse it, and with it all others of the request."""
    return not (pair[0].strip() and pair[1].strip())


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Raises ValueError for vectors that have no angle between them."""
    if len(one) != len(other):
        raise ValueError("two texts have vectors of different lengths.")
    lengths = math.hypot(*one) * math.hypot(*other)
    if not math.isfinite(lengths) or lengths == 0:
        raise ValueError("a vector has no direction.")
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths
