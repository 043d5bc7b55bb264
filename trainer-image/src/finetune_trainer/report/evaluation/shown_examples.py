"""Which examples the page of an evaluation shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune_api.evaluation import BASELINE
from finetune_trainer.report.evaluation.page import ComparedExample

MOST_OF_A_KIND = 5


def choose(examples: Sequence[ComparedExample], candidate: str) -> dict[str, list[ComparedExample]]:
    """By heading: where a candidate loses and gains most against the baseline, and its lowest and highest scores.

    An example is there once. One that the first grader could not grade has the lowest score.
    """
    scored = [(_score(one, candidate), _score(one, BASELINE), one) for one in examples]
    changes = [(mine - base, one) for mine, base, one in scored if mine is not None and base is not None]
    lowest = [(-1.0 if mine is None else mine, one) for mine, _, one in scored]
    shown: set[int] = set()
    return {
        f"{candidate} is worse than the baseline": _first(shown, ((gain, one) for gain, one in changes if gain < 0)),
        f"{candidate} is better than the baseline": _first(shown, ((-gain, one) for gain, one in changes if gain > 0)),
        f"Lowest scores of {candidate}": _first(shown, ((mine, one) for mine, one in lowest if mine < 1)),
        f"Highest scores of {candidate}": _first(shown, ((-mine, one) for mine, one in lowest if mine > 0)),
    }


def _score(example: ComparedExample, model: str) -> float | None:
    return next((one.score for one in example.answers if one.model == model), None)


def _first(shown: set[int], ranked: Iterable[tuple[float, ComparedExample]]) -> list[ComparedExample]:
    """The first ones that are not shown yet; of equal ones, those that come first in the dataset."""
    left = sorted(((rank, one) for rank, one in ranked if id(one) not in shown), key=lambda pair: pair[0])
    found = [one for _, one in left[:MOST_OF_A_KIND]]
    shown.update(id(one) for one in found)
    return found
