"""A model of the class that tells harmful texts from harmless ones, and how its replies are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import ApiModel, Text, cel
from finetune_api.graders import ModelName
from finetune_api.kubernetes_types import SET

ClassifierFormat = Literal["Qwen3Guard", "LlamaGuard", "GraniteGuardian", "OpenAIModeration", "Policy"]
Category = Annotated[str, StringConstraints(min_length=1, max_length=32)]
CATEGORIES: Mapping[ClassifierFormat, tuple[str, ...]] = {
    "Qwen3Guard": (
        "Violent",
        "Non-violent Illegal Acts",
        "Sexual Content or Sexual Acts",
        "PII",
        "Suicide & Self-Harm",
        "Unethical Acts",
        "Politically Sensitive Topics",
        "Copyright Violation",
        "Jailbreak",
    ),
    "LlamaGuard": tuple(f"S{number}" for number in range(1, 15)),
    "OpenAIModeration": (
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "illicit",
        "illicit/violent",
        "self-harm",
        "self-harm/intent",
        "self-harm/instructions",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ),
}
"""As the model's publisher names them; the other formats have none."""
IMAGE_FORMATS: tuple[ClassifierFormat, ...] = ("LlamaGuard", "OpenAIModeration", "Policy")
"""Those whose models may read images, too."""
CONTROVERSIAL = "Qwen3Guard"
"""The format with a third verdict."""


def _category_rules() -> list[tuple[str, str, str]]:
    """CEL: each category is one of the format's."""
    none = [name for name in ("GraniteGuardian", "Policy") if name not in CATEGORIES]
    rules = [
        (
            f"self.format != '{name}' || self.categories.all(one, one in {json.dumps(known, ensure_ascii=False)})",
            f"not a category of {name}: docs/how-to/screen-a-dataset.md",
            "categories",
        )
        for name, known in CATEGORIES.items()
    ]
    without = (f"!(self.format in {json.dumps(none)}) || self.categories.size() == 0", "this format has no categories")
    return [*rules, (*without, "categories")]


class Classifier(ApiModel):
    """A model of the class that says whether a text is harmful."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "(self.format == 'Policy') == has(self.policy)",
                "format Policy requires policy, and no other format has one",
                "policy",
            ),
            (
                f"self.format == '{CONTROVERSIAL}' || !self.flagsControversial",
                f"flagsControversial is for format {CONTROVERSIAL}",
                "flagsControversial",
            ),
            *_category_rules(),
        )
    )

    model: ModelName = Field(description="Name of a model in spec.models of the FineTuneClass.")
    format: ClassifierFormat = Field(
        description="How it is asked and its reply is read. Policy: any model, by `policy`."
    )
    policy: Text | None = Field(None, description="What is not allowed, in words.")
    categories: list[Category] = Field(
        default=[], max_length=16, json_schema_extra=SET, description="Categories that count. Empty: all."
    )
    flags_controversial: bool = Field(False, description="Whether the verdict Controversial counts, too.")
