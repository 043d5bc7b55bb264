"""dataset.screening: examples that nobody should train on, and what was found of them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, Line, cel
from finetune_api.kubernetes_types import SET
from finetune_api.model_usage import Budget, ModelUsage
from finetune_api.safety.classifier import IMAGE_FORMATS, Classifier

ScreeningRule = Literal["EmailAddress", "PhoneNumber", "IBAN", "PaymentCard", "Secret", "IdentityShift", "AlwaysComply"]
UNCLASSIFIED = "Unclassified"
"""In place of a rule: the classifier gave no verdict."""
OTHER = "Other"
"""In place of a category: the classifier calls a text harmful, and names no category that its format has."""
MOST_FINDINGS = 40
SHOWN_LINES = 10


class Screening(ApiModel):
    """Which examples are flagged, in both sets, and what becomes of them."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.budget) || has(self.classifier)",
                "only a classifier has a budget: rules cost nothing",
                "budget",
            ),
            (
                f"!self.images || (has(self.classifier) && self.classifier.format in {list(IMAGE_FORMATS)})",
                f"images need a classifier that reads them: one of format {', '.join(IMAGE_FORMATS)}",
                "images",
            ),
        )
    )

    action: Literal["Report", "Drop", "Fail"] = Field(
        "Report",
        description="Report: they are counted. Drop: they are left out. Fail: the dataset is invalid.",
    )
    rules: list[ScreeningRule] = Field(
        default=["EmailAddress", "PhoneNumber", "IBAN", "PaymentCard", "Secret", "IdentityShift", "AlwaysComply"],
        max_length=16,
        json_schema_extra=SET,
        description="Rules that flag an example.",
    )
    classifier: Classifier | None = Field(None, description="Omitted: the rules alone.")
    images: bool = Field(False, description="Whether the classifier gets images, too: one request for each.")
    budget: Budget | None = Field(
        None,
        description="How much the classifier may be asked in the run. At the limit the run ends. Omitted: no limit.",
    )


class ScreeningFinding(ApiModel):
    """The examples of one set that one rule or category flags."""

    file: Literal["training", "validation", "source"] = Field(
        description="Set that contains them; source: of a Dataset."
    )
    rule: Line = Field(
        description="Rule, or category of the classifier. Other: harmful by it, without a known category. "
        "Unclassified: it gave no verdict."
    )
    examples: int = Field(description="Number of examples.")
    lines: list[Line] = Field(
        default=[],
        max_length=SHOWN_LINES,
        description="Numbers of the first ones, with the file if there are several.",
    )


class ScreeningStatus(ApiModel):
    """What screening found; dataset-findings.jsonl has every line."""

    examples: int = Field(description="Examples read, of both sets.")
    flagged: int = Field(description="Those that something flags.")
    findings: list[ScreeningFinding] = Field(
        default=[], max_length=MOST_FINDINGS, description="By set and rule, the largest first."
    )
    usage: ModelUsage | None = None
