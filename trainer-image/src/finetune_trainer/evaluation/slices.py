"""Scores of parts of the examples: those of one language, one customer, one kind of question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.base import LINE_LENGTH
from finetune_api.evaluation import BASELINE, MOST_SLICE_SCORES
from finetune_api.evaluation_results import Score, SliceScore
from finetune_grading.sample import Sample
from finetune_grading.scores import Counting, Examples, Graded, Thresholds, scores_of
from finetune_grading.templates import render
from finetune_trainer.evaluation.heldout import HeldOutExample

MOST_SLICES = 50
"""By one template: of more texts, those of the most examples."""


@dataclass(frozen=True)
class Slice:
    """The examples for which a template makes one text."""

    by: str
    value: str
    scores: list[Score]


def largest(slices: Sequence[Slice]) -> list[SliceScore]:
    """The scores for the status: of the candidates, on the largest slices."""
    found = [
        SliceScore(
            by=one.by,
            value=one.value[:LINE_LENGTH],
            **{name: getattr(score, name) for name in SliceScore.model_fields if name not in ("by", "value")},
        )
        for one in slices
        for score in one.scores
        if score.candidate != BASELINE
    ]
    return sorted(found, key=lambda score: -score.examples)[:MOST_SLICE_SCORES]


def labels(template: str, examples: Sequence[HeldOutExample]) -> list[str]:
    """What a template makes of each example."""
    return [render(template, example.item, Sample("")) for example in examples]


def slices_of(
    templates: Sequence[str],
    examples: Sequence[HeldOutExample],
    grades: Graded,
    thresholds: Thresholds,
    graded: Examples,
    counting: Counting,
) -> list[Slice]:
    """The scores of each slice by each template; a slice of which no row counts has none."""
    found: list[Slice] = []
    for template in templates:
        texts = labels(template, examples)
        for value, _ in Counter(texts).most_common(MOST_SLICES):
            of_slice = [at for at, text in enumerate(texts) if text == value]
            rows = [at * graded.samples + sample for at in of_slice for sample in range(graded.samples)]
            part = {
                model: {grader: [of_grader[row] for row in rows] for grader, of_grader in of_model.items()}
                for model, of_model in grades.items()
            }
            lines = [graded.lines[at] for at in of_slice]
            clusters = graded.clusters and [graded.clusters[at] for at in of_slice]
            found.append(
                Slice(template, value, scores_of(part, thresholds, Examples(lines, clusters, graded.samples), counting))
            )
    return found
