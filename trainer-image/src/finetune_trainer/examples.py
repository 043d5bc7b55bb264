"""Examples to learn from: chat messages or prompt/completion pairs, as OpenAI's service takes them.

msgspec decodes and checks a line in one pass, at the speed of plain JSON decoding; only for a line that it refuses,
example_errors.py finds the words. Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType

from finetune_trainer.example_errors import explain, unmatched_tool_call
from finetune_trainer.jsonl import LineError, parse, read_lines

Format = Literal["Chat", "PromptCompletion"]

LEAST_TRAINING_EXAMPLES = 10

FORMAT_NAMES: Mapping[Format, str] = {"Chat": "chat messages", "PromptCompletion": "prompt/completion pairs"}


class TextPart(Struct, tag_field="type", tag="text", frozen=True):
    """A part of a message's content."""

    text: str


Content = str | list[TextPart]


class Function(Struct, frozen=True):
    """What a tool call calls; the arguments are a JSON object as text."""

    name: str
    arguments: str


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A call of the assistant's."""

    function: Function
    id: str | None = None
    type: Literal["function"] | None = None


class Message(Struct, tag_field="role", forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True):
    """What the messages of every role may have."""

    name: str | None = None


class System(Message, tag="system", frozen=True):
    content: Content


class Developer(Message, tag="developer", frozen=True):
    content: Content


class User(Message, tag="user", frozen=True):
    content: Content


class Assistant(Message, tag="assistant", frozen=True):
    """What is learned from, unless its weight is 0."""

    content: Content | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] | None = None
    weight: Literal[0, 1] = 1


class Tool(Message, tag="tool", frozen=True):
    """What a tool answered."""

    content: Content
    tool_call_id: str | None = None


class ChatExample(Struct, frozen=True):
    """A conversation that ends with the assistant."""

    messages: list[System | Developer | User | Assistant | Tool]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None

    def to_template(self) -> list[dict[str, Any]]:
        """The messages as chat templates take them: content is text, a call's arguments are an object."""
        return [_to_template(message) for message in self.messages]


class CompletionExample(Struct, frozen=True):
    """A text and how it goes on."""

    prompt: str
    completion: str


Example = ChatExample | CompletionExample


class _Line(Struct):
    """A line of either format. Keys that are not known are left out."""

    messages: list[System | Developer | User | Assistant | Tool] | UnsetType = UNSET
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None
    prompt: Any = None
    completion: Any = None


_DECODER = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class NumberedExample:
    """An example and its line, counted from 1."""

    line: int
    example: Example


def read_examples(file: Path) -> Iterator[NumberedExample | LineError]:
    """The examples of a JSON Lines file, or what is wrong with them. The first one sets the file's format."""
    file_format: Format | None = None
    empty = True
    for item in read_lines(file):
        empty = False
        if isinstance(item, LineError):
            yield item
            continue
        number, line = item
        example = _decode(number, line)
        if isinstance(example, LineError):
            yield example
            continue
        file_format = file_format or format_of(example)
        if format_of(example) == file_format:
            yield NumberedExample(number, example)
        else:
            yield _mixed(number, file_format, format_of(example))
    if empty:
        yield LineError(1, "The file is empty.")


def parse_example(value: object) -> Example:
    """The example in a line's JSON value. Raises ExampleError."""
    try:
        return _to_example(msgspec.convert(value, _Line))
    except (msgspec.ValidationError, _RefusedError) as error:
        raise explain(value, str(error)) from error


def format_of(example: Example) -> Format:
    """The format that an example is of."""
    return "Chat" if isinstance(example, ChatExample) else "PromptCompletion"


def fingerprint(example: Example) -> bytes:
    """16 bytes that are the same for examples of the same content."""
    content = [example.to_template(), example.tools] if isinstance(example, ChatExample) else example
    return hashlib.blake2b(msgspec.json.encode(content, order="deterministic"), digest_size=16).digest()


class _RefusedError(Exception):
    """The line has the right types, and is no example all the same."""


def _decode(number: int, line: bytes) -> Example | LineError:
    try:
        return _to_example(_DECODER.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, _RefusedError) as error:
        record = parse(number, line)
        if isinstance(record, LineError):
            return record
        return LineError(number, str(explain(record.value, str(error))))


def _to_example(line: _Line) -> Example:
    if isinstance(line.messages, list):
        _check_chat(line.messages)
        return ChatExample(line.messages, line.tools or None, line.parallel_tool_calls)
    if isinstance(line.prompt, str) and isinstance(line.completion, str) and line.completion.strip():
        return CompletionExample(line.prompt, line.completion)
    raise _RefusedError("It is neither chat messages nor a prompt/completion pair.")


def _check_chat(messages: list[System | Developer | User | Assistant | Tool]) -> None:
    if not messages or not isinstance(messages[-1], Assistant):
        raise _RefusedError("It does not end with the assistant.")
    learned = has_calls = False
    for message in messages:
        if isinstance(message, Assistant):
            learned = learned or message.weight == 1
            if message.tool_calls is not None:
                has_calls = True
                _check_arguments(message.tool_calls)
            elif not (content_text(message.content) or message.refusal or "").strip():
                raise _RefusedError("A message of the assistant is empty.")
    if not learned:
        raise _RefusedError("Nothing is learned from.")
    if (has_calls or any(isinstance(message, Tool) for message in messages)) and unmatched_tool_call(
        msgspec.to_builtins(messages)
    ):
        raise _RefusedError("A tool call and its answer don't match.")


def _check_arguments(calls: list[ToolCall]) -> None:
    for call in calls:
        try:
            arguments = orjson.loads(call.function.arguments)
        except orjson.JSONDecodeError as error:
            raise _RefusedError("The arguments of a call are no JSON.") from error
        if not isinstance(arguments, dict):
            raise _RefusedError("The arguments of a call are no object.")


def content_text(content: Content | None) -> str:
    """A content's text, its parts joined."""
    if isinstance(content, list):
        return "".join(part.text for part in content)
    return content or ""


def _to_template(message: Message) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": type(message).__struct_config__.tag}
    if message.name is not None:
        rendered["name"] = message.name
    if isinstance(message, Assistant):
        if message.tool_calls is not None:
            rendered["tool_calls"] = [_call_to_template(call) for call in message.tool_calls]
        rendered["content"] = content_text(message.content) or message.refusal or ""
        return rendered
    if isinstance(message, Tool) and message.tool_call_id is not None:
        rendered["tool_call_id"] = message.tool_call_id
    assert isinstance(message, System | Developer | User | Tool)
    rendered["content"] = content_text(message.content)
    return rendered


def _call_to_template(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": orjson.loads(call.function.arguments)}
    rendered: dict[str, Any] = {"type": "function", "function": function}
    if call.id is not None:
        rendered["id"] = call.id
    return rendered


def _mixed(line: int, expected: Format, found: Format) -> LineError:
    return LineError(line, f"Expected {FORMAT_NAMES[expected]} as in the lines before, found {FORMAT_NAMES[found]}.")
