"""spec.safety of an Evaluation: harmful requests in several forms, put to every model, and what came of them."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import ApiModel, FiniteNumber, Line, cel
from finetune_api.evaluation.models import MOST_CANDIDATES
from finetune_api.graders import ShortName
from finetune_api.kubernetes_types import SET, keyed_by
from finetune_api.safety.classifier import CONTROVERSIAL, Classifier
from finetune_api.sources import DatasetUri
from finetune_api.unions import OneOf

Converter = Literal["None", "Base64", "ROT13", "RolePlay", "PrefixInjection", "LowerCase", "Leetspeak"]
Measure = Literal["AttackSuccess", "OverRefusal"]
PromptCategory = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./&-]*$", max_length=40)]
ALL = "All"
"""In place of a category or a converter: all of them together."""
OWN_CATEGORIES = ("Weapons", "Cybercrime", "Fraud", "Drugs", "Hate and harassment", "Self-harm")
"""Of the harmful requests that come with the trainer."""
MOST_SAFETY_GATES = 6
MOST_SAFETY_SCORES = 96
"""In a report: two of each model, and one of each gate for each."""


class PromptSet(ApiModel):
    """Requests, one a line: {"prompt": "...", "category": "..."}."""

    name: ShortName = Field(description="Name of the set.")
    uri: DatasetUri = Field(description="As dataset.uri.")


class Safety(ApiModel):
    """Attacks on every model, and harmless requests that it should answer."""

    prompt_sets: list[PromptSet] = Field(
        default=[],
        max_length=4,
        json_schema_extra=keyed_by("name"),
        description="Harmful requests. Empty: a small set of our own.",
    )
    benign_sets: list[PromptSet] = Field(
        default=[],
        max_length=4,
        json_schema_extra=keyed_by("name"),
        description="Harmless requests that look harmful. Empty: a small set of our own.",
    )
    converters: list[Converter] = Field(
        default=["None", "Base64", "ROT13", "RolePlay", "PrefixInjection", "LowerCase", "Leetspeak"],
        min_length=1,
        max_length=16,
        json_schema_extra=SET,
        description="Forms in which each harmful request is put. None: as it is.",
    )
    classifier: Classifier | None = Field(
        None,
        description="Says whether an answer is harmful. Omitted: rules, which fail gates and pass none.",
    )
    limit_prompts: int | None = Field(
        None, ge=1, le=100_000, description="Maximum number of requests of each kind. Omitted: all."
    )
    max_tokens: int = Field(256, ge=16, le=8192, description="Maximum number of tokens of an answer.")


class SafetyGate(OneOf):
    """A threshold that no candidate may exceed, by the upper bound of the 95 % confidence interval."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.measure != 'OverRefusal' || (!has(self.category) && !has(self.converter))",
                "a gate on OverRefusal has no category and no converter",
                "measure",
            )
        )
    )

    choices = ("maximum", "maximum_delta")

    measure: Measure = Field(
        "AttackSuccess",
        description="AttackSuccess: share of harmful requests that get a harmful answer. OverRefusal: share of "
        "harmless requests that are refused.",
    )
    category: PromptCategory | None = Field(None, description="Omitted: all categories.")
    converter: Converter | None = Field(None, description="Omitted: all converters.")
    maximum: float | None = Field(None, gt=0, lt=1, description="Maximum rate.")
    maximum_delta: float | None = Field(None, gt=-1, lt=1, description="Maximum rise over the baseline's rate.")


SAFETY_RULES = (
    ("self.safetyGates.size() == 0 || has(self.safety)", "safetyGates require safety", "safetyGates"),
    (
        "!has(self.safety) || self.safetyGates.all(gate, !has(gate.converter) || gate.converter in "
        "self.safety.converters)",
        "converter of a safety gate is one of safety.converters",
        "safetyGates",
    ),
    (
        "!has(self.safety) || self.safety.promptSets.size() > 0 || self.safetyGates.all(gate, !has(gate.category) || "
        f"gate.category in {json.dumps(OWN_CATEGORIES)})",
        f"without safety.promptSets, the categories are {', '.join(OWN_CATEGORIES)}",
        "safetyGates",
    ),
    (
        "!has(self.safety) || (has(self.safety.classifier) && self.safety.classifier.format == "
        f"'{CONTROVERSIAL}') || self.safetyGates.all(gate, gate.measure != 'OverRefusal')",
        f"a gate on OverRefusal requires safety.classifier with format {CONTROVERSIAL}, whose reply says whether an "
        "answer refuses: rules alone pass no gate",
        "safetyGates",
    ),
    (
        "!has(self.safety) || (self.candidates.all(one, !has(one.model.outputs)) && (!has(self.baseline) || "
        "!has(self.baseline.model.outputs)))",
        "safety needs models that answer, not outputs",
        "safety",
    ),
    (
        "self.runId != oldSelf.runId || (has(self.safety) == has(oldSelf.safety) && (!has(self.safety) || self.safety "
        "== oldSelf.safety))",
        "changing safety starts a new run: change spec.runId too (safetyGates may change at any time)",
        "safety",
    ),
)
"""CEL rules of an Evaluation's spec."""


class SafetyScore(ApiModel):
    """One rate of one model, with its 95 % confidence interval, over requests."""

    candidate: ShortName = Field(description="Name of the candidate, or `baseline`.")
    measure: Line = Field(description="AttackSuccess or OverRefusal.")
    category: Line = Field(description="Category of the requests, or All.")
    converter: Line = Field(description="Form of the requests, or All.")
    rate: float = Field(allow_inf_nan=False, description="Share of the answers that count, 0 to 1.")
    low: float = Field(allow_inf_nan=False, description="Lower bound of the 95 % interval.")
    high: float = Field(allow_inf_nan=False, description="Upper bound; answers without a verdict count.")
    answers: int = Field(description="Coherent answers.")
    counted: int = Field(description="Those that are harmful, or refusals.")
    errored: int = Field(0, description="Those without a verdict.")
    incoherent: int = Field(0, description="Further answers, without meaning.")
    delta: FiniteNumber = Field(None, description="Rise over the baseline on the same requests.")
    delta_low: FiniteNumber = Field(None, description="Lower bound of the rise.")
    delta_high: FiniteNumber = Field(None, description="Upper bound of the rise.")


class SafetyGateResult(ApiModel):
    """Result of one gate for one candidate."""

    candidate: ShortName = Field(description="Name of the candidate.")
    measure: Line = Field(description="AttackSuccess or OverRefusal.")
    category: Line | None = Field(None, description="Omitted: all.")
    converter: Line | None = Field(None, description="Omitted: all.")
    verdict: Literal["Passed", "Failed", "Inconclusive"] = Field(
        "Inconclusive", description="Inconclusive: too few requests, or only rules have judged."
    )
    message: Line = Field(description="The measured and required values.")


class SafetyStatus(ApiModel):
    """What the attacks have shown; report.html has every category and converter."""

    results: list[SafetyScore] = Field(
        default=[], max_length=MOST_SAFETY_SCORES, description="Of every model, and those that gates are about."
    )
    gates: list[SafetyGateResult] = Field(
        default=[],
        max_length=MOST_CANDIDATES * MOST_SAFETY_GATES,
        description="Result of every gate for every candidate.",
    )
