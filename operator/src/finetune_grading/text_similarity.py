"""The grader TextSimilarity: OpenAI's text_similarity with fuzzy_match."""

from __future__ import annotations

from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from finetune_api.evaluation import Grader, TextSimilarity
from finetune_grading.comparison import compile_comparison
from finetune_grading.grader import CompiledGrader


def compile_text_similarity(grader: Grader) -> CompiledGrader:
    """Raises InvalidGraderError."""
    return compile_comparison(grader.name, grader.text_similarity or TextSimilarity(), fuzzy_match)


def fuzzy_match(input_text: str, reference: str) -> float:
    """OpenAI's fuzzy_match, from 0 to 1. Case and punctuation do not count.

    OpenAI documents that it is rapidfuzz's, but not which function; its guide on graders calls
    `fuzz.WRatio(..., processor=utils.default_process) / 100`, and so does this.
    """
    if input_text == reference:  # WRatio is 0 for two empty texts, or texts of punctuation only
        return 1.0
    return fuzz.WRatio(input_text, reference, processor=default_process) / 100
