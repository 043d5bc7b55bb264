"""The formats of examples, and whether a training method learns from them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finetune_trainer.data.read.jsonl import LineError

Format = Literal["Chat", "PromptCompletion", "Preference", "Reinforcement"]

FORMAT_NAMES: Mapping[Format, str] = {
    "Chat": "chat messages",
    "PromptCompletion": "prompt/completion pairs",
    "Preference": "preference pairs",
    "Reinforcement": "prompts with fields for graders",
}

OPENAI_FORMATS: Mapping[Format, str] = {
    "Chat": "fine-tune-chat",
    "PromptCompletion": "fine-tune-completion",
    "Preference": "fine-tune-preference",
    "Reinforcement": "fine-tune-reinforcement",
}


@dataclass(frozen=True)
class MethodFormats:
    """The formats of each training method: an error suggests a method that fits the data."""

    method: str
    by_method: Mapping[str, tuple[Format, ...]]

    @property
    def learned(self) -> tuple[Format, ...]:
        """The formats that the run's method learns from."""
        return self.by_method[self.method]

    def fitting(self, found: Format) -> list[str]:
        """The methods that learn from a format."""
        return [method for method, formats in self.by_method.items() if found in formats]


def wrong_file(found: Format, method: MethodFormats | None, expected: Format | None) -> str | None:
    """Why a file whose first example has this format can't be used, in OpenAI's wording; None if it can."""
    if expected is not None and found != expected:
        return f"Unexpected file format, expected {FORMAT_NAMES[expected]}, found {FORMAT_NAMES[found]}."
    if method is not None and found not in method.learned:
        fitting = " or ".join(f"'{name}'" for name in method.fitting(found))
        learned = " or ".join(FORMAT_NAMES[name] for name in method.learned)
        return (
            f"Input file is in the {OPENAI_FORMATS[found]} format, but the specified fine-tuning job is not using "
            f"{fitting} as the training method (provided method={method.method}, which learns from {learned})."
        )
    return None


def mixed_formats(line: int, expected: Format, found: Format) -> LineError:
    return LineError(line, f"Expected {FORMAT_NAMES[expected]} as in the lines before, found {FORMAT_NAMES[found]}.")
