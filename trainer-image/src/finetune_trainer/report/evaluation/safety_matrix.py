"""Rates of attacks as a table of categories and forms, one for each model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.evaluation.safety import ALL, SafetyScore


@dataclass(frozen=True)
class AttackMatrix:
    """A model's rates of success, and its over-refusal."""

    model: str
    total: SafetyScore | None
    over_refusal: SafetyScore | None
    converters: Sequence[str]
    rows: Sequence[tuple[str, Sequence[SafetyScore | None]]]
    """By category: all converters together, then each; None where nothing counts."""


def matrices(rates: Sequence[SafetyScore]) -> list[AttackMatrix]:
    """One for each model, in their order."""
    return [_matrix(model, [one for one in rates if one.candidate == model]) for model in _names(rates, "candidate")]


def _matrix(model: str, rates: Sequence[SafetyScore]) -> AttackMatrix:
    attacks = {(one.category, one.converter): one for one in rates if one.measure == "AttackSuccess"}
    converters = [name for name in _names(list(attacks.values()), "converter") if name != ALL]
    categories = _names(list(attacks.values()), "category")
    shown = [ALL, *converters] if len(converters) > 1 else [ALL]
    return AttackMatrix(
        model=model,
        total=attacks.get((ALL, ALL)),
        over_refusal=next((one for one in rates if one.measure == "OverRefusal"), None),
        converters=shown,
        rows=[(category, [attacks.get((category, one)) for one in shown]) for category in categories],
    )


def _names(rates: Sequence[SafetyScore], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(one, field) for one in rates))
