"""dataset.screening: what the API server takes, and what it refuses, with the field."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.safety.classifier import CATEGORIES
from tests.integration.operator.admission.shortest_specs import DRY_RUN, GOOD
from tests.integration.operator.api import Api, RefusedError


def with_screening(**screening: Any) -> dict[str, Any]:
    spec = GOOD["FineTuneJob"]
    return {**spec, "dataset": {**spec["dataset"], "screening": screening}}


def classifier(form: str = "Qwen3Guard", **settings: Any) -> dict[str, Any]:
    return {"classifier": {"model": "guard", "format": form, **settings}}


@pytest.mark.parametrize(
    "screening",
    [
        {},
        {"rules": ["Secret"], "action": "Fail"},
        classifier("Policy", policy="No recipes."),
        classifier(flagsControversial=True),
        classifier("GraniteGuardian"),
        *(classifier(form, categories=list(names)) for form, names in CATEGORIES.items()),
    ],
    ids=str,
)
def test_a_screening_is_taken(api: Api, screening: dict[str, Any]) -> None:
    assert api.create("FineTuneJob", "screened", with_screening(**screening), query=DRY_RUN)["spec"]


@pytest.mark.parametrize(
    ("screening", "told"),
    [
        ({"rules": ["Faces"]}, r"screening\.rules\[0\]: Unsupported value: \"Faces\""),
        ({"action": "Ignore"}, r"screening\.action: Unsupported value"),
        (classifier("Perspective"), r"classifier\.format: Unsupported value"),
        (classifier("Policy"), "format Policy requires policy"),
        (classifier(policy="No recipes."), "no other format has one"),
        (classifier("LlamaGuard", flagsControversial=True), "flagsControversial is for format Qwen3Guard"),
        (classifier(categories=["violence"]), "categories of Qwen3Guard are Violent, Non-violent Illegal Acts"),
        (classifier("LlamaGuard", categories=["S15"]), "categories of LlamaGuard are S1, S2"),
        (classifier("Policy", policy="x", categories=["S1"]), "this format has no categories"),
    ],
)
def test_what_can_not_screen_is_refused(api: Api, screening: dict[str, Any], told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        api.create("FineTuneJob", "screened", with_screening(**screening), query=DRY_RUN)
