"""Chat messages in the form of OpenAI's API, and their conversion for chat templates. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from msgspec import Meta, Struct


class TextPart(Struct, tag_field="type", tag="text", frozen=True):
    """Text, as a part of a message's content."""

    text: str


class ImageUrl(Struct, frozen=True, omit_defaults=True):
    """https://, s3:// or a data URI."""

    url: Annotated[str, Meta(pattern=r"^(https://|s3://|data:image/(jpeg|png|webp);base64,)")]
    detail: Literal["low", "high", "auto"] = "auto"


class ImagePart(Struct, tag_field="type", tag="image_url", frozen=True):
    """An image, as a part of a user's message."""

    image_url: ImageUrl


Content = str | list[TextPart]
UserContent = str | list[TextPart | ImagePart]


class Function(Struct, frozen=True):
    """The function of a tool call; the arguments are a JSON object as text."""

    name: str
    arguments: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A tool call of the assistant."""

    function: Function
    id: str | None = None
    type: Literal["function"] | None = None


class Message(Struct, tag_field="role", forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True):
    """The keys that messages of every role may have."""

    name: str | None = None


class System(Message, tag="system", frozen=True):
    content: Content


class Developer(Message, tag="developer", frozen=True):
    content: Content


class User(Message, tag="user", frozen=True):
    content: UserContent


class Assistant(Message, tag="assistant", frozen=True):
    """A message with loss, unless its weight is 0."""

    content: Content | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] | None = None
    weight: Literal[0, 1] = 1


class Tool(Message, tag="tool", frozen=True):
    """The result of a tool call."""

    content: Content
    tool_call_id: str | None = None


Messages = list[System | Developer | User | Assistant | Tool]


def content_text(content: UserContent | Content | None) -> str:
    """The text of a message's content: its text parts joined, without images."""
    if isinstance(content, list):
        return "".join(part.text for part in content if isinstance(part, TextPart))
    return content or ""


def to_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages for chat templates: the content is text (parts if there is an image), and arguments are objects."""
    return [_message_to_template(message) for message in messages]


def messages_text(messages: Sequence[Message]) -> str:
    """The text of the messages, with their tool calls."""
    return "\n".join(_message_text(message) for message in messages)


def _message_text(message: Message) -> str:
    text = content_text(getattr(message, "content", None))
    if isinstance(message, Assistant) and message.tool_calls is not None:
        return "\n".join([text, *(f"{call.function.name} {call.function.arguments}" for call in message.tool_calls)])
    return text


def _message_to_template(message: Message) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": type(message).__struct_config__.tag}
    if message.name is not None:
        rendered["name"] = message.name
    if isinstance(message, Assistant):
        if message.tool_calls is not None:
            rendered["tool_calls"] = [_call_to_template(call) for call in message.tool_calls]
        if message.reasoning_content:
            rendered["reasoning_content"] = message.reasoning_content
        rendered["content"] = content_text(message.content) or message.refusal or ""
        return rendered
    if isinstance(message, Tool) and message.tool_call_id is not None:
        rendered["tool_call_id"] = message.tool_call_id
    assert isinstance(message, System | Developer | User | Tool)
    if isinstance(message, User) and isinstance(message.content, list) and _holds_image(message.content):
        rendered["content"] = _parts_to_template(message.content)
    else:
        rendered["content"] = content_text(message.content)
    return rendered


def _holds_image(parts: list[TextPart | ImagePart]) -> bool:
    return any(isinstance(part, ImagePart) for part in parts)


def _parts_to_template(parts: list[TextPart | ImagePart]) -> list[dict[str, str]]:
    """The parts as processors take them, with the URL of each image in its place.

    Adjacent texts are joined, as in messages without images, so that a control token split over two parts is found.
    """
    rendered: list[dict[str, str]] = []
    for part in parts:
        if isinstance(part, ImagePart):
            rendered.append({"type": "image", "image": part.image_url.url})
        elif rendered and rendered[-1]["type"] == "text":
            rendered[-1]["text"] += part.text
        else:
            rendered.append({"type": "text", "text": part.text})
    return rendered


def _call_to_template(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": orjson.loads(call.function.arguments)}
    rendered: dict[str, Any] = {"type": "function", "function": function}
    if call.id is not None:
        rendered["id"] = call.id
    return rendered
