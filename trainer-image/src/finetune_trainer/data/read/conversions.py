"""Converts other common forms of examples into ours.

Alpaca (`instruction`, `input`, `output`), ShareGPT (`conversations` with `from` and `value`), OpenAI's older
`functions`, a `system` key beside the messages, arguments as objects, tools as JSON text, and null for absent keys, as
`datasets` and OpenAI's own SDK write it. Only lines that the decoder rejects get here. Part of the instant `validate`
command: imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from finetune_trainer.data.read.example_errors import ExampleError
from finetune_trainer.data.read.jsonl import repeated_key

READ = frozenset(
    {
        *("messages", "tools", "parallel_tool_calls", "prompt", "completion", "chosen", "rejected"),
        *("input", "preferred_output", "non_preferred_output"),
    }
)
_REWRITTEN = frozenset(
    {"system", "system_prompt", "functions", "conversations", "instruction", "output", "response", "history"}
)
_IMAGES = "Put each image into a user's message, as a part of type 'image_url'."
_KTO = "It belongs to KTO, which is not supported. Write pairs of a preferred and a rejected answer instead."
_SAMPLING = "It says how to ask a model, not what to learn. Leave it out."
_WHY_REFUSED = {
    "chat_template_kwargs": "Every line is rendered alike, as the model will be asked. Leave it out.",
    "documents": "Put the texts into a message.",
    "images": _IMAGES,
    "image": _IMAGES,
    "videos": "Only text and images can be learned from.",
    "audios": "Only text and images can be learned from.",
    "label": _KTO,
    "kto_tag": _KTO,
    "margin": "Margins of pairs are not known here. Leave it out.",
    "weight": "A weight belongs to a message of the assistant's. Put it there.",
    "tool_choice": _SAMPLING,
    "response_format": _SAMPLING,
    "function_call": "A call belongs to a message of the assistant's, as 'tool_calls'. Put it there.",
}
REFUSED = frozenset(_WHY_REFUSED)
MEANT = _REWRITTEN | REFUSED
"""Keys of a line that change what is learned: never ignored."""

_REASONING = ("reasoning", "thinking")
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "function_call",
}
_KEYS_OF_INPUT = frozenset({"messages", "tools", "parallel_tool_calls"})
_KEYS_OF_MESSAGES = frozenset(
    {"role", "content", "name", "weight", "tool_calls", "refusal", "reasoning_content", "tool_call_id"}
)


def load_exactly(line: bytes) -> Any:
    """A line's JSON whose numbers keep their text when serialized again. Raises ValueError, RecursionError."""

    def whole(text: str) -> Any:
        return int(text) if len(text) < 16 and text != "-0" else orjson.Fragment(text)

    return json.loads(line, parse_float=orjson.Fragment, parse_int=whole, parse_constant=_refuse_constant)


def to_known_form(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line converted to one of our forms, or unchanged if no conversion applies. Raises ExampleError."""
    line = {key: value for key, value in without_nulls(line).items() if value not in ([], {}) or key in READ}
    for key, why in _WHY_REFUSED.items():
        if key in line and not (key == "label" and _is_name(line[key])):
            raise ExampleError(f"The key {key!r} of a line is not supported. {why}")
    _rewrite_tools(line)
    if "conversations" in line and "messages" not in line:
        _rewrite_conversations(line)
    elif "instruction" in line and "messages" not in line:
        _rewrite_instruction(line)
    _rewrite_system(line)
    for key in ("messages", "prompt", "completion", "chosen", "rejected", "preferred_output", "non_preferred_output"):
        if isinstance(line.get(key), list):
            line[key] = [_message(message) for message in line[key]]
    if isinstance(line.get("input"), dict):
        line["input"] = _input(line["input"])
    return line


def _load_text(where: str, text: str, wrong: str) -> Any:
    """The JSON in a text value of a line. Raises ExampleError, with the message `wrong` if it is not JSON."""
    if repeated := repeated_key(text):
        raise ExampleError(f"{where}: {repeated}")
    try:
        return load_exactly(text.encode())
    except (ValueError, RecursionError) as error:
        raise ExampleError(wrong) from error


def _input(given: Mapping[str, Any]) -> dict[str, Any]:
    """The input of OpenAI's preference pairs, all of which is part of the prompt."""
    given = dict(given)
    _rewrite_tools(given)
    _rewrite_system(given)
    if isinstance(given.get("messages"), list):
        given["messages"] = [_message(message) for message in given["messages"]]
    for key in sorted(given.keys() - _KEYS_OF_INPUT):
        raise ExampleError(f"The key {key!r} of 'input' is not supported. Leave it out.")
    return given


def _is_name(label: Any) -> bool:
    """Whether a label is a class name of the dataset: KTO's label is true or false, or 1 or 0 in tables."""
    return isinstance(label, str) and label.strip().lower() not in ("true", "false", "1", "0")


def without_nulls(value: Any) -> Any:
    """The value without null keys: null means absent, since a table has every key in every row."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _rewrite_tools(line: dict[str, Any]) -> None:
    tools = line.get("tools")
    if isinstance(tools, str):
        wrong = "'tools' must be a list of objects, or one as JSON text."
        line["tools"] = _load_text("'tools'", tools, wrong) if tools.strip() else []
    functions = line.pop("functions", None)
    if functions is not None:
        if line.get("tools"):
            raise ExampleError("The line has both 'tools' and 'functions'. Keep one of them.")
        line["tools"] = functions
    if isinstance(line.get("tools"), list):
        line["tools"] = [_tool(tool) for tool in line["tools"]]


def _tool(tool: Any) -> Any:
    """Wrap a bare function as a tool."""
    if isinstance(tool, dict) and "function" not in tool and isinstance(tool.get("name"), str) and "type" not in tool:
        return {"type": "function", "function": tool}
    return tool


def _rewrite_system(line: dict[str, Any]) -> None:
    texts = [line.pop(key) for key in ("system", "system_prompt") if key in line]
    if not texts or texts == [""]:
        return
    keys = [key for key in ("messages", "prompt", "input") if isinstance(line.get(key), list | dict)]
    if len(texts) > 1 or not keys or not isinstance(texts[0], str):
        raise ExampleError("'system' must be text beside 'messages'. Put it into a message of the role system.")
    for key in keys:
        messages = line[key].get("messages") if isinstance(line[key], dict) else line[key]
        if not isinstance(messages, list):
            raise ExampleError(f"{key!r} must be a list of messages, or have one.")
        if any(isinstance(message, dict) and message.get("role") == "system" for message in messages):
            raise ExampleError("The line has 'system', and a message of the role system too. Keep one of them.")
        with_system = [{"role": "system", "content": texts[0]}, *messages]
        line[key] = {**line[key], "messages": with_system} if isinstance(line[key], dict) else with_system


def _rewrite_instruction(line: dict[str, Any]) -> None:
    """Alpaca's form; with `chosen` and `rejected` as text, the instruction is the prompt of a preference pair."""
    asked = {"role": "user", "content": _asked(line.pop("instruction"), line.pop("input", ""))}
    prompt = [*_earlier(line.pop("history", [])), asked]
    outputs = [line.pop(key) for key in ("output", "response") if key in line]
    if len(outputs) > 1:
        raise ExampleError("The line has both 'output' and 'response'. Keep one of them.")
    if isinstance(line.get("chosen"), str) and isinstance(line.get("rejected"), str):
        if "prompt" in line:
            raise ExampleError("The line has both 'instruction' and 'prompt'. Keep one of them.")
        sides = {key: [{"role": "assistant", "content": line[key]}] for key in ("chosen", "rejected")}
        line.update(sides, prompt=prompt)
        if not outputs:
            return
    if not outputs or not isinstance(outputs[0], str):
        raise ExampleError("'output' must be text: what the model should answer to 'instruction' and 'input'.")
    if not outputs[0].strip():
        raise ExampleError("'output' is empty: there is nothing to learn.")
    line["messages"] = [*prompt, {"role": "assistant", "content": outputs[0]}]


def _earlier(history: Any) -> list[dict[str, Any]]:
    """Alpaca's history as messages; its answers have no loss."""
    messages: list[dict[str, Any]] = []
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ExampleError("'history' must be a list of pairs, each of a question and its answer.")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1], "weight": 0}]
    return messages


def _asked(instruction: Any, given: Any) -> str:
    if not isinstance(instruction, str) or not isinstance(given, str):
        raise ExampleError("'instruction' and 'input' must be text.")
    return "\n\n".join(text for text in (instruction, given) if text.strip())


def _rewrite_conversations(line: dict[str, Any]) -> None:
    """ShareGPT's form; with `chosen` and `rejected`, the conversation is the prompt of a preference pair."""
    conversations = line.pop("conversations")
    if not isinstance(conversations, list):
        raise ExampleError("'conversations' must be a list of messages.")
    messages = [_spoken(number, message) for number, message in enumerate(conversations, start=1)]
    if "chosen" not in line or "rejected" not in line:
        line["messages"] = messages
        return
    line["prompt"] = messages
    for key in ("chosen", "rejected"):
        side = line[key] if isinstance(line[key], list) else [line[key]]
        line[key] = [_spoken(1, message) for message in side]


def _spoken(number: int, message: Any) -> Any:
    """A message with `from`, and with `value` or `content`."""
    if not isinstance(message, dict) or "from" not in message:
        return message
    if "value" in message and "content" in message:
        raise ExampleError(f"Message {number} has both 'value' and 'content'. Keep one of them.")
    text = {"content": message.get("value", message.get("content"))} if {"value", "content"} & message.keys() else {}
    rest = {key: value for key, value in message.items() if key not in ("from", "value", "content")}
    role = _SPEAKERS.get(str(message["from"]))
    if role is None:
        known = ", ".join(_SPEAKERS)
        raise ExampleError(f"Message {number}: 'from' must be one of {known}, found {message['from']!r}.")
    if role != "function_call":
        return {**rest, "role": role, **text}
    where = f"Message {number}: the 'value' of a function_call"
    calls = _load_text(where, str(text.get("content")), f"{where} must be JSON.")
    calls = calls if isinstance(calls, list) else [calls]
    return {**rest, "role": "assistant", "tool_calls": [{"type": "function", "function": call} for call in calls]}


def _message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    if "from" in message and "role" not in message:
        message = _spoken(1, message)
    known = {key: value for key, value in message.items() if key in _KEYS_OF_MESSAGES or value not in ([], {}, "")}
    if known.get("role") == "function":
        known["role"] = "tool"
    if known.get("role") == "assistant":
        if known.get("tool_calls") == [] and known.get("content"):
            del known["tool_calls"]
        if "function_call" in known and "tool_calls" not in known:
            known["tool_calls"] = [{"type": "function", "function": known.pop("function_call")}]
        for key in _REASONING:
            if key in known and "reasoning_content" not in known:
                known["reasoning_content"] = known.pop(key)
    if isinstance(known.get("tool_calls"), list):
        known["tool_calls"] = [_call(call) for call in known["tool_calls"]]
    return known


def _call(call: Any) -> Any:
    """A call with its arguments as text; a bare function is wrapped as a call."""
    if not isinstance(call, dict):
        return call
    if "function" not in call and "name" in call and "arguments" in call:
        call = {"type": "function", "function": call}
    function = call["function"] if isinstance(call.get("function"), dict) else {}
    if isinstance(function.get("arguments"), dict):
        text = orjson.dumps(function["arguments"]).decode()
        return {**call, "function": {**function, "arguments": text}}
    return call


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
