"""The training methods by their type in the API, a line each. Imports nothing heavy: `validate` reads the formats."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_trainer.data.read.formats import Format, MethodFormats

if TYPE_CHECKING:
    from finetune_api import finetunejob as api
    from finetune_trainer.methods.method import Method


@dataclass(frozen=True)
class RegisteredMethod:
    """Where a method is, and the formats of examples that it learns from, as its MethodRules in the API has them."""

    place: str
    """`module:Class` of the Method, which is made of the method's settings."""
    formats: tuple[Format, ...]


METHODS: dict[str, RegisteredMethod] = {
    "SFT": RegisteredMethod("finetune_trainer.methods.sft:SFTMethod", ("Chat", "PromptCompletion")),
    "DPO": RegisteredMethod("finetune_trainer.methods.dpo:DPOMethod", ("Preference",)),
}


def method_of(spec: api.Method) -> Method:
    """The method that a spec names, with its settings."""
    build: Callable[[Any], Method] = pkgutil.resolve_name(METHODS[spec.type].place)
    return build(spec.settings)


def formats_of(method: str) -> MethodFormats:
    """What a method learns from, and what the other methods do."""
    return MethodFormats(method, {name: registered.formats for name, registered in METHODS.items()})
