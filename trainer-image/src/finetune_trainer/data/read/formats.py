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


@dataclass(frozen=True)
class WrongFormat(LineError):
    """A whole file is in another format than is read, as this line shows; what to change depends on who reads it."""

    found: Format


NEEDS_ITS_NAME = (
    "No example has an answer. These are prompts with fields for graders (the fine-tune-reinforcement format), which "
    "are read as such only where that is said."
)


AS_PROMPTS = (
    " To learn from conversations in this way, end them with the user's message: the model writes the answer itself, "
    "and what graders compare it with belongs into a field of its own beside 'messages'."
)


def accepted_formats(method: MethodFormats | None, expected: Format | None) -> tuple[Format, ...]:
    """The formats that a file may have. Prompts look like broken conversations, so they are asked for by name."""
    if expected is not None:
        return (expected,)
    return ("Chat", "PromptCompletion", "Preference") if method is None else method.learned


def wrong_file(line: int, found: Format, method: MethodFormats | None, expected: Format | None) -> WrongFormat | None:
    """Why a file whose first example has this format can't be used, in OpenAI's wording; None if it can."""
    if found in accepted_formats(method, expected):
        return None
    return WrongFormat(line, _not_accepted(found, method, expected), found)


def _not_accepted(found: Format, method: MethodFormats | None, expected: Format | None) -> str:
    as_prompts = AS_PROMPTS if (found, accepted_formats(method, expected)) == ("Chat", ("Reinforcement",)) else ""
    if expected is not None:
        return f"Unexpected file format, expected {FORMAT_NAMES[expected]}, found {FORMAT_NAMES[found]}.{as_prompts}"
    if method is not None:
        fitting = " or ".join(f"'{name}'" for name in method.fitting(found))
        learned = " or ".join(FORMAT_NAMES[name] for name in method.learned)
        return (
            f"Input file is in the {OPENAI_FORMATS[found]} format, but the specified fine-tuning job is not using "
            f"{fitting} as the training method (provided method={method.method}, which learns from {learned})."
            f"{as_prompts}"
        )
    return NEEDS_ITS_NAME


def mixed_formats(line: int, expected: Format, found: Format) -> LineError:
    return LineError(line, f"Expected {FORMAT_NAMES[expected]} as in the lines before, found {FORMAT_NAMES[found]}.")
