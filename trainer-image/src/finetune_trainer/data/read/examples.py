"""Training examples in the formats of OpenAI's service and TRL, one class each. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from finetune_trainer.data.read.formats import Format
from finetune_trainer.data.read.messages import (
    Assistant,
    ImagePart,
    ImageUrl,
    Message,
    Messages,
    User,
    messages_text,
    to_template,
)


class ChatExample(Struct, frozen=True):
    """A conversation that ends with the assistant."""

    format: ClassVar[Format] = "Chat"

    messages: Messages
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None

    @property
    def has_images(self) -> bool:
        """Whether any message has an image."""
        return bool(self.images())

    def images(self) -> list[ImageUrl]:
        """The images, in the order in which the model sees them."""
        contents = [message.content for message in self.messages if isinstance(message, User)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return [part.image_url for part in parts if isinstance(part, ImagePart)]

    def to_template(self) -> list[dict[str, Any]]:
        """The messages as chat templates take them."""
        return to_template(self.messages)

    def all_messages(self) -> Iterator[Message]:
        """The messages, in order."""
        yield from self.messages

    def asked(self) -> object:
        """The prompt of the last answer: examples with the same prompt and different answers contradict each other."""
        last = max(position for position, message in enumerate(self.messages) if isinstance(message, Assistant))
        return [to_template(self.messages[:last]), self.tools]

    def text(self) -> str:
        """The whole text, for comparing examples."""
        return messages_text(self.messages)

    def arguments(self) -> list[list[str]]:
        """The arguments of each message's calls, as written."""
        return [call_arguments(message) for message in self.messages]


class CompletionExample(Struct, frozen=True):
    """A text and its continuation."""

    format: ClassVar[Format] = "PromptCompletion"

    prompt: str
    completion: str

    def all_messages(self) -> Iterator[Message]:
        """No messages."""
        yield from ()

    def asked(self) -> object:
        """The prompt: examples with the same prompt and different answers contradict each other."""
        return self.prompt

    def text(self) -> str:
        """The whole text, for comparing examples."""
        return f"{self.prompt}\n{self.completion}"


class PreferenceExample(Struct, frozen=True):
    """A prompt with a preferred and a rejected answer: texts, or messages."""

    format: ClassVar[Format] = "Preference"

    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages
    tools: list[dict[str, Any]] | None = None

    def all_messages(self) -> Iterator[Message]:
        """The messages of the prompt and of both answers."""
        for side in (self.prompt, self.chosen, self.rejected):
            if not isinstance(side, str):
                yield from side

    def asked(self) -> object:
        """The prompt with both answers: one prompt may have several pairs, but a pair and its reverse contradict."""
        answers = sorted(digest(_plain(side), size=8) for side in (self.chosen, self.rejected))
        return [_plain(self.prompt), self.tools, answers]

    def text(self) -> str:
        """The whole text, for comparing examples."""
        sides = (self.prompt, self.chosen, self.rejected)
        return "\n".join(side if isinstance(side, str) else messages_text(side) for side in sides)


class ReinforcementExample(Struct, frozen=True):
    """A prompt that the model answers by itself, and what graders read."""

    format: ClassVar[Format] = "Reinforcement"

    prompt: str | Messages
    item: str
    """All fields of the line, as JSON with sorted keys."""
    tools: list[dict[str, Any]] | None = None

    def all_messages(self) -> Iterator[Message]:
        """The messages of the prompt."""
        yield from () if isinstance(self.prompt, str) else self.prompt

    def asked(self) -> object:
        """The whole line: graders may expect several things of one prompt."""
        return self.item

    def text(self) -> str:
        """The prompt, for comparing examples."""
        return self.prompt if isinstance(self.prompt, str) else messages_text(self.prompt)


Example = ChatExample | CompletionExample | PreferenceExample | ReinforcementExample


def call_arguments(message: Message) -> list[str]:
    """The arguments of a message's calls, as written."""
    return [call.function.arguments for call in (isinstance(message, Assistant) and message.tool_calls) or ()]


def fingerprint(example: Example) -> bytes:
    """A hash of 16 bytes, the same for examples with the same content."""
    content = [example.to_template(), example.tools] if isinstance(example, ChatExample) else example
    return digest(content, size=16)


def digest(value: object, *, size: int) -> bytes:
    """A hash of `size` bytes of a JSON value."""
    return hashlib.blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=size).digest()


def _plain(side: str | Messages) -> object:
    return side if isinstance(side, str) else to_template(side)
