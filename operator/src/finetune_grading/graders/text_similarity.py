"""The grader TextSimilarity: OpenAI's text_similarity."""

from __future__ import annotations

from finetune_api.graders import Grader, TextSimilarity
from finetune_grading.graders.comparison import compile_comparison
from finetune_grading.graders.interface import InvalidGraderError, LocalGrader
from finetune_grading.text_metrics import METRICS
from finetune_grading.wordnet import WordNetNotFoundError


def compile_text_similarity(grader: Grader, pass_threshold: float) -> LocalGrader:
    """Raises InvalidGraderError."""
    spec = grader.text_similarity or TextSimilarity()
    if spec.metric == "Cosine":
        raise InvalidGraderError(
            grader.name, "textSimilarity.model: metric Cosine needs an embedding model of the class."
        )
    return compile_comparison(grader, spec, METRICS[spec.metric], pass_threshold)


def load_text_similarity(grader: Grader) -> None:
    """Import the metric's library, which is no output's time. Raises InvalidGraderError where METEOR's files lack."""
    if grader.type == "TextSimilarity" and grader.asks is None:
        try:
            METRICS[(grader.text_similarity or TextSimilarity()).metric]("a", "b")
        except WordNetNotFoundError as error:
            raise InvalidGraderError(grader.name, str(error)) from error
