"""How alike two texts are, from 0 to 1, by the libraries of the field; each is imported when it is first asked.

The first text is the model's, the second the reference. docs/reference/graders.md has the formulas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import RowError
from finetune_grading.wordnet import wordnet

TextMetric = Callable[[str, str], float]
"""Raises RowError for texts that are too long for it."""
MOST_CHARACTERS = 20_000_000
"""The product of two texts' characters that FuzzyMatch compares, in at most 1 s of C, which no limit on time stops."""
MOST_WORDS = 5_000_000
"""The product of two texts' words for ROUGEL: 1 s, and a table with a cell of 8 bytes for each pair."""

_ROUGE_WORD = re.compile(r"[a-z0-9]+")


def fuzzy_match(text: str, reference: str) -> float:
    """OpenAI's fuzzy_match. Case and punctuation do not count.

    OpenAI documents that it is rapidfuzz's, but not which function; its guide on graders calls
    `fuzz.WRatio(..., processor=utils.default_process) / 100`, and so does this.
    """
    if text == reference:  # WRatio is 0 for two empty texts, or texts of punctuation only
        return 1.0
    _refuse_long(len(text), len(reference), MOST_CHARACTERS, "characters")
    ratio, process = _rapidfuzz()
    score: float = ratio(text, reference, processor=process) / 100
    return score


def bleu(text: str, reference: str) -> float:
    """Sentence BLEU by sacrebleu: nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|version:2.6.0."""
    score: float = _sacrebleu().sentence_score(text, [reference]).score / 100
    return min(1.0, score)


def gleu(text: str, reference: str) -> float:
    """Google-BLEU by nltk, of 1- to 4-grams of `word_tokenize`'s words."""
    from nltk.translate.gleu_score import sentence_gleu

    score: float = sentence_gleu([_words(reference)], _words(text))
    return score


def meteor(text: str, reference: str) -> float:
    """METEOR by nltk (alpha 0.9, beta 3, gamma 0.5): words alike as they are, by Porter's stems, and in WordNet."""
    from nltk.translate.meteor_score import meteor_score

    score: float = meteor_score([_words(reference)], _words(text), wordnet=wordnet())
    return score


def rouge(kind: str) -> TextMetric:
    """The F1 of rouge-score, without stemming; kind: rouge1 to rouge5 (n-grams), rougeL (longest common run)."""

    def of(text: str, reference: str) -> float:
        if kind == "rougeL":
            _refuse_long(_rouge_words(text), _rouge_words(reference), MOST_WORDS, "words")
        score: float = _rouge(kind).score(reference, text)[kind].fmeasure
        return score

    return of


METRICS: Mapping[str, TextMetric] = {
    "FuzzyMatch": fuzzy_match,
    "BLEU": bleu,
    "GLEU": gleu,
    "METEOR": meteor,
    **{f"ROUGE{n}": rouge(f"rouge{n}") for n in (1, 2, 3, 4, 5)},
    "ROUGEL": rouge("rougeL"),
}
"""By the metric of a TextSimilarity grader."""


def _refuse_long(one: int, other: int, most: int, unit: str) -> None:
    if one * other > most:
        details = (
            f"The texts have {one} and {other} {unit}; this metric compares texts for which the product is at most "
            f"{most}. Shorten the reference, or use another metric."
        )
        raise RowError(GraderErrorCode.OTHER_ERROR, details)


def _rouge_words(text: str) -> int:
    return sum(1 for _ in _ROUGE_WORD.finditer(text.lower()))


@cache
def _rapidfuzz() -> tuple[Any, Any]:
    from rapidfuzz import fuzz
    from rapidfuzz.utils import default_process

    return fuzz.WRatio, default_process


@cache
def _sacrebleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


@cache
def _rouge(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=False)


def _words(text: str) -> list[str]:
    """nltk's words; `preserve_line`: it needs no model of where sentences end."""
    from nltk.tokenize import word_tokenize

    words: list[str] = word_tokenize(text, preserve_line=True)
    return words
