"""How much each searched field matters for the score: the share of the scores' variance that it alone explains. Pure.

Trials are grouped by their values of a field (numbers of many values by their order, into a few groups of equal size),
and omega squared (https://en.wikipedia.org/wiki/Effect_size#Omega-squared_(%CF%892)) is the share of the variance that
lies between the groups, less what chance alone would put there. It sees no interactions, and needs no library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean

FEWEST_TRIALS = 8
_GROUPS = 4
_FEWEST_OF_A_GROUP = 2

Value = float | str


def importances(trials: Sequence[tuple[Mapping[str, Value], float]]) -> dict[str, float]:
    """The share for each field, the largest first; empty if there are too few trials to tell. Trials: values, score."""
    if len(trials) < FEWEST_TRIALS:
        return {}
    paths = sorted({path for values, _ in trials for path in values})
    found = {}
    for path in paths:
        known = [(values[path], score) for values, score in trials if path in values]
        share = _explained(_groups(known)) if len(known) == len(trials) else None
        if share is not None:
            found[path] = share
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _groups(known: Sequence[tuple[Value, float]]) -> list[list[float]]:
    """The scores of trials with similar values."""
    different = {value for value, _ in known}
    is_numeric = all(isinstance(value, float) for value in different)
    if not is_numeric or len(different) <= _GROUPS:
        return [[score for value, score in known if value == one] for one in different]
    ordered = [score for _, score in sorted(known, key=lambda one: (float(one[0]), one[1]))]
    size = math.ceil(len(ordered) / _GROUPS)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _explained(groups: Sequence[Sequence[float]]) -> float | None:
    """Omega squared, at least 0; None where it can't be computed."""
    scores = [score for group in groups for score in group]
    within, between = len(scores) - len(groups), len(groups) - 1
    if between < 1 or within < _FEWEST_OF_A_GROUP:
        return None
    middle = mean(scores)
    total = sum(_square(score - middle) for score in scores)
    inside = sum(_square(score - mean(group)) for group in groups for score in group)
    if not math.isfinite(total) or total <= 0:
        return None
    noise = inside / within
    return min(1.0, max(0.0, (total - inside - between * noise) / (total + noise)))


def _square(number: float) -> float:
    """Infinite where `**` would fail."""
    return number * number
