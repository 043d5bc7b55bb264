"""Scores of slices: parts of the examples, such as those of one language or one customer."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.base import LINE_LENGTH
from finetune_api.evaluation import BASELINE, MOST_SLICE_SCORES, GatedSlice, GatedSliceStatus, Score, SliceScore
from finetune_api.pod_contracts.outcome import gated_by
from finetune_grading.grade import Grade
from finetune_grading.sample import Sample
from finetune_grading.scores import OF_THE_OUTPUT, Counting, Examples, Graded, Thresholds, scores_of
from finetune_grading.templates import render
from finetune_trainer.outputs.heldout import HeldOutExample

MOST_SLICES = 50
"""Slices by one template at most; if there are more, the largest are kept."""


@dataclass(frozen=True)
class Slice:
    """The examples for which a template renders the same text."""

    by: str
    value: str
    examples: int
    """Examples of the dataset, whether or not their outputs could be graded."""
    scores: list[Score]
    baseline_errored: Mapping[str, int]
    """By grader: outputs of the baseline that could not be graded and might have had any score."""


def reported(slices: Sequence[Slice], gated: Sequence[GatedSlice] = ()) -> list[SliceScore]:
    """The candidates' scores for the status: first those that gates use, then those of the largest slices."""
    asked = set(gated)
    found = [_to_status(one, score) for one in slices for score in one.scores if score.candidate != BASELINE]
    return sorted(found, key=lambda one: (gated_by(one) not in asked, -one.examples))[:MOST_SLICE_SCORES]


def found_of_gated(slices: Sequence[Slice], gated: Sequence[GatedSlice]) -> list[GatedSliceStatus]:
    """How many examples of the dataset each slice has."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in slices:
        counts[one.by, key_of(one.value)] += one.examples
    return [
        GatedSliceStatus(by=one.by, value=one.value, grader=one.grader, examples=counts[one.by, one.value])
        for one in gated
    ]


def _to_status(one: Slice, score: Score) -> SliceScore:
    """A score for the status. `over_budget` counts the outputs of both models, since a gain compares them."""
    names = (score.candidate, BASELINE)
    both = [other for other in one.scores if other.grader == score.grader and other.candidate in names]
    counts = {
        "errored": score.errored or None,
        "baseline_errored": one.baseline_errored.get(score.grader) or None,
        "over_budget": sum(each.over_budget or 0 for each in both) or None,
    }
    same = {name: getattr(score, name) for name in Score.model_fields if name in SliceScore.model_fields}
    return SliceScore(**{**same, **counts, "by": one.by, "value": key_of(one.value)})


def key_of(value: str) -> str:
    """A slice's text as status and gates name it.

    A long one is cut, and ends with a digest that tells it apart from others with the same beginning.
    """
    if len(value) <= LINE_LENGTH:
        return value
    mark = f"...{hashlib.sha256(value.encode()).hexdigest()[:16]}"
    return value[: LINE_LENGTH - len(mark)] + mark


def labels(template: str, examples: Sequence[HeldOutExample]) -> list[str]:
    """The text that a template renders for each example."""
    return [render(template, example.item, Sample("")) for example in examples]


def slices_of(
    templates: Sequence[str],
    examples: Sequence[HeldOutExample],
    grades: Graded,
    thresholds: Thresholds,
    graded: Examples,
    counting: Counting,
    gated: Sequence[GatedSlice] = (),
) -> list[Slice]:
    """The scores of each slice by each template, always including those that gates use.

    A slice without a row that counts has no scores.
    """
    found: list[Slice] = []
    for template in templates:
        texts = labels(template, examples)
        asked = {one.value for one in gated if one.by == template}
        largest = [value for value, _ in Counter(texts).most_common(MOST_SLICES)]
        for value in dict.fromkeys([*largest, *(text for text in texts if key_of(text) in asked)]):
            of_slice = [at for at, text in enumerate(texts) if text == value]
            rows = [at * graded.samples + sample for at in of_slice for sample in range(graded.samples)]
            part = {
                model: {grader: [of_grader[row] for row in rows] for grader, of_grader in of_model.items()}
                for model, of_model in grades.items()
            }
            lines = [graded.lines[at] for at in of_slice]
            clusters = graded.clusters and [graded.clusters[at] for at in of_slice]
            scores = scores_of(part, thresholds, Examples(lines, clusters, graded.samples), counting)
            found.append(Slice(template, value, len(of_slice), scores, _ungraded(part.get(BASELINE, {}))))
    return found


def _ungraded(grades: Mapping[str, Sequence[Grade]]) -> dict[str, int]:
    """The outputs that could not be graded. One that lacks what the grader reads is not among them: it is wrong."""
    return {
        grader: sum(grade.error is not None and grade.error.code not in OF_THE_OUTPUT for grade in of_grader)
        for grader, of_grader in grades.items()
    }
