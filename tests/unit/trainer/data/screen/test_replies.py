"""Replies of classifiers, by the formats that their publishers describe."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.safety.classifier import Classifier
from finetune_trainer.data.screen.classifier import read_reply

REPLIES: list[tuple[str, dict[str, Any], str, list[str] | None]] = [
    ("Qwen3Guard", {}, "Safety: Safe\nCategories: None\nRefusal: No", []),
    ("Qwen3Guard", {}, "Safety: Unsafe\nCategories: Violent\nRefusal: No", ["Violent"]),
    (
        "Qwen3Guard",
        {},
        "Safety: Unsafe\nCategories: Non-violent Illegal Acts, PII\nRefusal: No",
        ["Non-violent Illegal Acts", "PII"],
    ),
    ("Qwen3Guard", {}, "Safety: Controversial\nCategories: Unethical Acts", []),
    (
        "Qwen3Guard",
        {"flagsControversial": True},
        "Safety: Controversial\nCategories: Unethical Acts",
        ["Unethical Acts"],
    ),
    ("Qwen3Guard", {}, "Safety: Unsafe\nCategories: Something New", ["Other"]),
    ("Qwen3Guard", {}, "Safety: Perhaps\nCategories: None", None),
    ("Qwen3Guard", {}, "I can't help with that.", None),
    ("Qwen3Guard", {}, "", None),
    ("LlamaGuard", {}, "\n\nsafe", []),
    ("LlamaGuard", {}, "unsafe\nS1,S10", ["S1", "S10"]),
    ("LlamaGuard", {}, "unsafe", ["Other"]),
    ("LlamaGuard", {}, "It is unsafe.", None),
    ("GraniteGuardian", {}, "Yes", ["Other"]),
    ("GraniteGuardian", {}, "No\n<confidence> High </confidence>", []),
    ("GraniteGuardian", {}, "<think>\nNo harm, yes?\n</think>\n<score> yes </score>", ["Other"]),
    ("GraniteGuardian", {}, "<think>\nNo harm", None),
]


@pytest.mark.parametrize(("form", "settings", "reply", "categories"), REPLIES)
def test_a_reply_is_harmful_harmless_or_no_verdict(
    form: str, settings: dict[str, Any], reply: str, categories: list[str] | None
) -> None:
    assert read_reply(Classifier.from_wire({"model": "guard", "format": form, **settings}), reply) == categories
