"""Examples to learn from: chat messages or prompt/completion pairs, checked as OpenAI's validator does.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from finetune_trainer.jsonl import LineError, Record, read_records

Format = Literal["Chat", "PromptCompletion"]

LEAST_TRAINING_EXAMPLES = 10

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGE_KEYS = frozenset({"role", "content", "name", "weight", "tool_calls", "tool_call_id", "refusal"})
FORMAT_NAMES: Mapping[Format, str] = {"Chat": "chat messages", "PromptCompletion": "prompt/completion pairs"}


@dataclass(frozen=True)
class ChatExample:
    """A conversation that ends with the assistant. `content` is text in every message; `weight` is 0 or 1."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class CompletionExample:
    """A text and how it goes on."""

    prompt: str
    completion: str


Example = ChatExample | CompletionExample


@dataclass(frozen=True)
class NumberedExample:
    """An example and its line, counted from 1."""

    line: int
    example: Example


class ExampleError(ValueError):
    """What is wrong with one example, in a sentence."""


def read_examples(file: Path) -> Iterator[NumberedExample | LineError]:
    """The examples of a JSON Lines file, or what is wrong with them. The first one sets the file's format."""
    file_format: Format | None = None
    empty = True
    for record in read_records(file):
        empty = False
        if isinstance(record, LineError):
            yield record
            continue
        try:
            example = parse_example(record.value)
        except ExampleError as error:
            yield LineError(record.line, str(error))
            continue
        file_format = file_format or format_of(example)
        if format_of(example) == file_format:
            yield NumberedExample(record.line, example)
        else:
            yield _mixed(record, file_format, format_of(example))
    if empty:
        yield LineError(1, "The file is empty.")


def format_of(example: Example) -> Format:
    """The format that an example is of."""
    return "Chat" if isinstance(example, ChatExample) else "PromptCompletion"


def fingerprint(example: Example) -> bytes:
    """16 bytes that are the same for examples of the same content."""
    content = (
        [example.messages, example.tools] if isinstance(example, ChatExample) else [example.prompt, example.completion]
    )
    return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def parse_example(value: object) -> Example:
    """The example in a line's JSON value. Raises ExampleError. Keys that are not known are left out."""
    if not isinstance(value, dict):
        raise ExampleError(f"Expected a JSON object, found {_kind(value)}.")
    if "messages" in value:
        return _parse_chat(value)
    if "prompt" in value and "completion" in value:
        return CompletionExample(
            prompt=_text(value["prompt"], "prompt"), completion=_target(value["completion"], "completion")
        )
    if "preferred_output" in value or "chosen" in value:
        raise ExampleError(
            "The line is a preference pair, but the job's method is SFT. "
            "Expected either prompt/completion pairs or chat messages."
        )
    raise ExampleError("Unexpected file format, expected either prompt/completion pairs or chat messages.")


def _parse_chat(value: dict[str, Any]) -> ChatExample:
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise ExampleError("'messages' must be a list with at least one message.")
    parsed = tuple(_parse_message(number, message) for number, message in enumerate(messages, start=1))
    if parsed[-1]["role"] != "assistant":
        raise ExampleError("The last message must be from the assistant.")
    if not any(message.get("weight") for message in parsed):
        raise ExampleError("There must be at least one assistant message with a weight other than 0.")
    return ChatExample(messages=parsed, tools=_parse_tools(value.get("tools")))


def _parse_message(number: int, message: object) -> dict[str, Any]:
    where = f"Message {number}:"
    if not isinstance(message, dict):
        raise ExampleError(f"{where} expected an object, found {_kind(message)}.")
    if "role" not in message:
        raise ExampleError(f"{where} Discriminator 'role' is missing in value.")
    role = message["role"]
    if role not in ROLES:
        raise ExampleError(f"{where} 'role' must be one of {', '.join(ROLES)}, found {_shown(role)}.")
    unknown = sorted(message.keys() - MESSAGE_KEYS)
    if unknown:
        raise ExampleError(f"{where} the key {_shown(unknown[0])} is not known.")
    parsed: dict[str, Any] = {"role": role}
    if isinstance(message.get("name"), str):
        parsed["name"] = message["name"]
    if isinstance(message.get("tool_call_id"), str):
        parsed["tool_call_id"] = message["tool_call_id"]
    calls = message.get("tool_calls")
    if calls is not None:
        if role != "assistant":
            raise ExampleError(f"{where} only the assistant can have 'tool_calls'.")
        parsed["tool_calls"] = _parse_tool_calls(where, calls)
    if role == "assistant":
        parsed["weight"] = _parse_weight(where, message.get("weight", 1))
        parsed["content"] = _assistant_content(where, message, has_calls=bool(calls))
    elif "weight" in message:
        raise ExampleError(f"{where} only the assistant's messages can have a 'weight'.")
    else:
        parsed["content"] = _content(where, message)
    return parsed


def _content(where: str, message: dict[str, Any]) -> str:
    if "content" not in message:
        raise ExampleError(f"{where} 'content' is missing.")
    content = message["content"]
    if isinstance(content, list):
        return "".join(_text_part(where, part) for part in content)
    return _text(content, f"{where} 'content'")


def _assistant_content(where: str, message: dict[str, Any], *, has_calls: bool) -> str:
    content = message.get("content")
    if content is None and has_calls:
        return ""
    if content is None and isinstance(message.get("refusal"), str):
        return _target(message["refusal"], f"{where} 'refusal'")
    text = _content(where, message)
    return text if has_calls else _target(text, f"{where} 'content'")


def _text_part(where: str, part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text":
        return _text(part.get("text"), f"{where} 'text'")
    kind = part.get("type") if isinstance(part, dict) else _kind(part)
    raise ExampleError(f"{where} only parts of type 'text' can be learned from, found {_shown(kind)}.")


def _parse_weight(where: str, weight: object) -> int:
    if isinstance(weight, bool) or weight not in (0, 1):
        raise ExampleError(f"{where} 'weight' must be 0 or 1, found {_shown(weight)}.")
    return int(bool(weight))


def _parse_tool_calls(where: str, calls: object) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not calls:
        raise ExampleError(f"{where} 'tool_calls' must be a list with at least one call.")
    return [_parse_tool_call(f"{where} tool call {number}:", call) for number, call in enumerate(calls, start=1)]


def _parse_tool_call(where: str, call: object) -> dict[str, Any]:
    """The arguments become an object: chat templates print them as JSON themselves."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise ExampleError(f"{where} expected an object with a 'function'.")
    if not isinstance(function.get("name"), str):
        raise ExampleError(f"{where} the function's 'name' must be text.")
    try:
        arguments = orjson.loads(_text(function.get("arguments"), f"{where} 'arguments'"))
    except orjson.JSONDecodeError as error:
        raise ExampleError(f"{where} 'arguments' must be a JSON object as text.") from error
    if not isinstance(arguments, dict):
        raise ExampleError(f"{where} 'arguments' must be a JSON object as text.")
    parsed: dict[str, Any] = {
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
    if isinstance(call.get("id"), str):
        parsed["id"] = call["id"]
    return parsed


def _parse_tools(tools: object) -> tuple[Mapping[str, Any], ...]:
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ExampleError("'tools' must be a list of objects.")
    return tuple(tools)


def _target(value: object, name: str) -> str:
    text = _text(value, name)
    if not text.strip():
        raise ExampleError(f"{name} is empty: there is nothing to learn.")
    return text


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ExampleError(f"{name} must be text, found {_kind(value)}.")
    return value


def _mixed(record: Record, expected: Format, found: Format) -> LineError:
    return LineError(
        record.line, f"Expected {FORMAT_NAMES[expected]} as in the lines before, found {FORMAT_NAMES[found]}."
    )


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A value from the file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
