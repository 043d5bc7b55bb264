"""The formats of examples, and which of them each training method learns from. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from finetune_trainer.data.read.jsonl import LineError

Format = Literal["Chat", "PromptCompletion", "Preference"]
MethodType = Literal["SFT", "DPO"]

METHOD_FORMATS: Mapping[MethodType, tuple[Format, ...]] = {
    "SFT": ("Chat", "PromptCompletion"),
    "DPO": ("Preference",),
}

FORMAT_NAMES: Mapping[Format, str] = {
    "Chat": "chat messages",
    "PromptCompletion": "prompt/completion pairs",
    "Preference": "preference pairs",
}

OPENAI_FORMATS: Mapping[Format, str] = {
    "Chat": "fine-tune-chat",
    "PromptCompletion": "fine-tune-completion",
    "Preference": "fine-tune-preference",
}


def reads_pairs(method: MethodType | None) -> bool:
    """Whether the method learns from preference pairs; without a method, a line that is also a conversation is that."""
    return method is not None and "Preference" in METHOD_FORMATS[method]


def wrong_file(found: Format, method: MethodType | None, expected: Format | None) -> str | None:
    """Why a file whose first example has this format can't be used, in OpenAI's wording; None if it can."""
    if method is not None and found not in METHOD_FORMATS[method]:
        fitting = " or ".join(f"'{name}'" for name, formats in METHOD_FORMATS.items() if found in formats)
        learned = " or ".join(FORMAT_NAMES[name] for name in METHOD_FORMATS[method])
        return (
            f"Input file is in the {OPENAI_FORMATS[found]} format, but the specified fine-tuning job is not using "
            f"{fitting} as the training method (provided method={method}, which learns from {learned})."
        )
    if expected is not None and found != expected:
        return f"Unexpected file format, expected {FORMAT_NAMES[expected]}, found {FORMAT_NAMES[found]}."
    return None


def mixed_formats(line: int, expected: Format, found: Format) -> LineError:
    return LineError(line, f"Expected {FORMAT_NAMES[expected]} as in the lines before, found {FORMAT_NAMES[found]}.")
