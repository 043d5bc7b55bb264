"""The texts of an example: those that rules read, and the exchange that a classifier judges. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_trainer.data.read.examples import (
    ChatExample,
    CompletionExample,
    Example,
    PreferenceExample,
    ReinforcementExample,
)
from finetune_trainer.data.read.messages import Assistant, Developer, Message, System, content_text, messages_text


@dataclass(frozen=True)
class Exchange:
    """What was asked, and what the model is to learn to answer; None where the data has no answer."""

    prompt: str
    answer: str | None
    image: str | None = None
    """Of the prompt, as a data URI."""


def all_text(example: Example) -> str:
    """Everything that may be learned from, with tool calls and reasoning."""
    if isinstance(example, CompletionExample | PreferenceExample | ReinforcementExample) and not _has_messages(example):
        return example.text()
    return "\n".join(_text(message) for message in example.all_messages()) + _texts_beside(example)


def persona_text(example: Example) -> str:
    """What says who the model is and how it behaves: instructions of the system, and answers that are learned.

    Users may ask for anything; a rejected answer is what the model is to avoid.
    """
    if isinstance(example, CompletionExample):
        return f"{example.prompt}\n{example.completion}"
    parts: list[str | Sequence[Message]] = []
    if isinstance(example, ChatExample):
        parts = [example.messages]
    elif isinstance(example, PreferenceExample):
        parts = [example.prompt, example.chosen]
    else:
        parts = [example.prompt]
    return "\n".join(_spoken(part) for part in parts)


def exchange(example: Example) -> Exchange:
    """The last answer, and everything before it."""
    if isinstance(example, CompletionExample):
        return Exchange(example.prompt, example.completion)
    if isinstance(example, ReinforcementExample):
        return Exchange(_conversation(example.prompt), None)
    if isinstance(example, PreferenceExample):
        chosen = example.chosen if isinstance(example.chosen, str) else messages_text(example.chosen)
        return Exchange(_conversation(example.prompt), chosen)
    return Exchange(_conversation(example.messages[:-1]), _text(example.messages[-1]))


def _has_messages(example: Example) -> bool:
    return any(True for _ in example.all_messages())


def _texts_beside(example: Example) -> str:
    """Sides of a preference pair that are plain text beside messages."""
    if not isinstance(example, PreferenceExample):
        return ""
    return "".join(f"\n{side}" for side in (example.prompt, example.chosen, example.rejected) if isinstance(side, str))


def _spoken(part: str | Sequence[Message]) -> str:
    if isinstance(part, str):
        return part
    return "\n".join(_text(message) for message in part if isinstance(message, System | Developer | Assistant))


def _conversation(part: str | Sequence[Message]) -> str:
    """The text of a single message; several are told apart by their roles."""
    if isinstance(part, str):
        return part
    if len(part) == 1:
        return _text(part[0])
    return "\n\n".join(f"{type(message).__struct_config__.tag}: {_text(message)}" for message in part)


def _text(message: Message) -> str:
    text = messages_text([message])
    if not isinstance(message, Assistant):
        return text
    further = (message.reasoning_content, message.refusal if not content_text(message.content) else None)
    return "\n".join([text, *(one for one in further if one)])
