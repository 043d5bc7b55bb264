"""dataset.screening of a FineTuneJob, safety and safetyGates of an Evaluation: what is taken, and what is refused."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from finetune_api.safety.classifier import CATEGORIES
from tests.integration.operator.admission.shortest_specs import CANDIDATE, DRY_RUN, GOOD, assert_refused
from tests.integration.operator.api import Api, RefusedError

GUARD = {"classifier": {"model": "guard", "format": "Qwen3Guard"}}
SET = {"promptSets": [{"name": "own", "uri": "s3://data/prompts.jsonl"}]}
OUTPUTS = {"name": "ready", "model": {"outputs": {"uri": "s3://data/outputs.jsonl"}}}


@pytest.mark.parametrize(
    "spec",
    [
        {"safety": {}},
        {"safety": GUARD, "safetyGates": [{"maximum": 0.05}, {"measure": "OverRefusal", "maximumDelta": 0.05}]},
        {"safety": {}, "safetyGates": [{"maximum": 0.1, "category": "Hate and harassment", "converter": "Base64"}]},
        {"safety": SET, "safetyGates": [{"maximumDelta": 0.01, "category": "Mine"}]},
    ],
    ids=str,
)
def test_a_safety_is_taken(api: Api, spec: dict[str, Any]) -> None:
    assert api.create("Evaluation", "safe", {**GOOD["Evaluation"], **spec}, query=DRY_RUN)["spec"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"safetyGates": [{"maximum": 0.1}]}, "safetyGates require safety"),
        ({"safety": {"converters": ["Morse"]}}, 'Unsupported value: "Morse"'),
        (
            {"safety": {"converters": ["None"]}, "safetyGates": [{"maximum": 0.1, "converter": "Base64"}]},
            "converter of a safety gate is one of safety.converters",
        ),
        (
            {"safety": {}, "safetyGates": [{"maximum": 0.1, "category": "Weather"}]},
            "without safety.promptSets, the categories are Weapons",
        ),
        ({"safety": {}, "safetyGates": [{"measure": "OverRefusal", "maximum": 0.1}]}, "rules alone pass no gate"),
        ({"safety": GUARD, "safetyGates": [{}]}, "maximum"),
        (
            {"safety": GUARD, "safetyGates": [{"measure": "OverRefusal", "maximum": 0.1, "category": "Fraud"}]},
            "OverRefusal has no category and no converter",
        ),
        ({"safety": {}, "candidates": [CANDIDATE, OUTPUTS]}, "safety needs models that answer, not outputs"),
    ],
    ids=str,
)
def test_what_can_not_be_judged_is_refused(api: Api, spec: dict[str, Any], told: str) -> None:
    assert_refused(api, "Evaluation", spec, [told])


def test_safety_gates_may_change_during_a_run_and_attacks_may_not(api: Api) -> None:
    name = f"attacked-{secrets.token_hex(4)}"
    api.create("Evaluation", name, {**GOOD["Evaluation"], "safety": GUARD, "safetyGates": [{"maximum": 0.1}]})
    api.patch("Evaluation", name, {"spec": {"safetyGates": [{"maximum": 0.2}]}})
    with pytest.raises(RefusedError, match=r"changing safety starts a new run: change spec\.runId too"):
        api.patch("Evaluation", name, {"spec": {"safety": {"maxTokens": 99}}})
    with pytest.raises(RefusedError, match="changing safety starts a new run"):
        api.patch("Evaluation", name, {"spec": {"safety": None, "safetyGates": []}})


def with_screening(**screening: Any) -> dict[str, Any]:
    spec = GOOD["FineTuneJob"]
    return {**spec, "dataset": {**spec["dataset"], "screening": screening}}


def classifier(form: str = "Qwen3Guard", **settings: Any) -> dict[str, Any]:
    return {"classifier": {"model": "guard", "format": form, **settings}}


@pytest.mark.parametrize(
    "screening",
    [
        {"classifier": {"model": "guard", "format": "LlamaGuard"}, "budget": {"requests": 10}},
        {},
        {"rules": ["Secret"], "action": "Fail"},
        classifier("Policy", policy="No recipes."),
        classifier(flagsControversial=True),
        classifier("GraniteGuardian"),
        *({"images": True, **classifier(form)} for form in ("LlamaGuard", "OpenAIModeration")),
        {"images": True, **classifier("Policy", policy="No faces.")},
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
        ({"budget": {"requests": 10}}, r"screening\.budget: .*only a classifier has a budget: rules cost nothing"),
        ({"action": "Ignore"}, r"screening\.action: Unsupported value"),
        (classifier("Perspective"), r"classifier\.format: Unsupported value"),
        (classifier("Policy"), "format Policy requires policy"),
        (classifier(policy="No recipes."), "no other format has one"),
        (classifier("LlamaGuard", flagsControversial=True), "flagsControversial is for format Qwen3Guard"),
        (classifier(categories=["violence"]), "not a category of Qwen3Guard"),
        (classifier("LlamaGuard", categories=["S15"]), "not a category of LlamaGuard"),
        (classifier("Policy", policy="x", categories=["S1"]), "this format has no categories"),
        (
            {"images": True},
            "images need a classifier that reads them: one of format LlamaGuard, OpenAIModeration, Policy",
        ),
        ({"images": True, **classifier()}, "images need a classifier that reads them"),
    ],
)
def test_what_can_not_screen_is_refused(api: Api, screening: dict[str, Any], told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        api.create("FineTuneJob", "screened", with_screening(**screening), query=DRY_RUN)
