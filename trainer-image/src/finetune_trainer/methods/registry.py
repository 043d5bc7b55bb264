"""The training methods by their type in the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from finetune_api import finetunejob as api
from finetune_trainer.methods.dpo import DPOMethod
from finetune_trainer.methods.method import Method
from finetune_trainer.methods.sft import SFTMethod

METHODS: Mapping[api.MethodType, Callable[[api.Method], Method]] = {
    "SFT": lambda spec: SFTMethod(spec.sft or api.SFT()),
    "DPO": lambda spec: DPOMethod(spec.dpo or api.DPO()),
}


def method_of(spec: api.Method) -> Method:
    """The method that a spec names, with its settings."""
    return METHODS[spec.type](spec)
