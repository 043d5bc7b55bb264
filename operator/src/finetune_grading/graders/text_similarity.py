"""The grader TextSimilarity: OpenAI's text_similarity."""

from __future__ import annotations

from finetune_api.graders import Grader, TextSimilarity
from finetune_grading.compiled import InvalidGraderError, LocalGrader
from finetune_grading.graders.comparison import compile_comparison
from finetune_grading.text_metrics import METRICS
from finetune_grading.wordnet import WordNetNotFoundError, wordnet


def compile_text_similarity(grader: Grader, pass_threshold: float) -> LocalGrader:
    """Raises InvalidGraderError."""
    spec = grader.text_similarity or TextSimilarity()
    if spec.metric == "Cosine":
        raise InvalidGraderError(
            grader.name, "textSimilarity.model: metric Cosine needs an embedding model of the class."
        )
    return compile_comparison(grader, spec, METRICS[spec.metric], pass_threshold)


def load_text_similarity(grader: Grader) -> None:
    """What METEOR needs is there. Raises InvalidGraderError."""
    if grader.text_similarity is not None and grader.text_similarity.metric == "METEOR":
        try:
            wordnet()
        except WordNetNotFoundError as error:
            raise InvalidGraderError(grader.name, str(error)) from error
