"""What is wrong with an example, in the words of OpenAI's validator. Only what was refused comes here.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

ROLES = ("system", "developer", "user", "assistant", "tool")
KEYS_OF_ALL = frozenset({"role", "content", "name"})
KEYS_OF_ROLE = {"assistant": frozenset({"weight", "tool_calls", "refusal"}), "tool": frozenset({"tool_call_id"})}


class ExampleError(ValueError):
    """What is wrong with one example, in a sentence."""


def explain(value: object, refusal: str) -> ExampleError:
    """Why a line's JSON value is no example; `refusal` is what the decoder said, for what has no better words."""
    try:
        _check(value)
    except ExampleError as error:
        return error
    return ExampleError(refusal)


def unmatched_tool_call(messages: Sequence[Any]) -> str | None:
    """What is wrong with the order of tool calls (those that have an id) and their answers, if anything is."""
    waiting: dict[str, int] = {}
    for number, message in enumerate(messages, start=1):
        if message["role"] == "tool":
            answered = message.get("tool_call_id")
            if answered is not None and waiting.pop(answered, None) is None:
                return f"Message {number}: no tool call before it has the id {_shown(answered)}."
            continue
        if waiting:
            return _unanswered(waiting)
        calls = message.get("tool_calls") or []
        waiting = {call["id"]: number for call in calls if isinstance(call.get("id"), str)}
        if len(waiting) < sum(isinstance(call.get("id"), str) for call in calls):
            return f"Message {number}: two tool calls have the same id."
    # The last message may be the call itself: that is what is learned.
    return _unanswered(waiting) if waiting and max(waiting.values()) < len(messages) else None


def _unanswered(waiting: dict[str, int]) -> str:
    call, number = next(iter(waiting.items()))
    return f"Message {number}: no tool message answers its tool call {_shown(call)}."


def _check(value: object) -> None:
    if not isinstance(value, dict):
        raise ExampleError(f"Expected a JSON object, found {_kind(value)}.")
    if "messages" in value:
        return _check_chat(value)
    if "prompt" in value and "completion" in value:
        _text(value["prompt"], "prompt")
        _target(value["completion"], "completion")
        return None
    if "preferred_output" in value or "chosen" in value:
        raise ExampleError(
            "The line is a preference pair, but the job's method is SFT. "
            "Expected either prompt/completion pairs or chat messages."
        )
    raise ExampleError("Unexpected file format, expected either prompt/completion pairs or chat messages.")


def _check_chat(value: dict[str, Any]) -> None:
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise ExampleError("'messages' must be a list with at least one message.")
    for number, message in enumerate(messages, start=1):
        _check_message(f"Message {number}:", message)
    if messages[-1]["role"] != "assistant":
        raise ExampleError("The last message must be from the assistant.")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        raise ExampleError("There must be at least one assistant message with a weight other than 0.")
    tools = value.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ExampleError("'tools' must be a list of objects.")
    if not isinstance(value.get("parallel_tool_calls"), bool | None):
        raise ExampleError("'parallel_tool_calls' must be true or false.")
    if mismatch := unmatched_tool_call(messages):
        raise ExampleError(mismatch)


def _check_message(where: str, message: object) -> None:
    if not isinstance(message, dict):
        raise ExampleError(f"{where} expected an object, found {_kind(message)}.")
    if "role" not in message:
        raise ExampleError(f"{where} Discriminator 'role' is missing in value.")
    role = message["role"]
    if role not in ROLES:
        raise ExampleError(f"{where} 'role' must be one of {', '.join(ROLES)}, found {_shown(role)}.")
    _check_keys(where, role, message)
    if not isinstance(message.get("name"), str | None):
        raise ExampleError(f"{where} 'name' must be text, found {_kind(message['name'])}.")
    if role == "assistant":
        _check_assistant(where, message)
    else:
        _content(where, message)
    if not isinstance(message.get("tool_call_id"), str | None):
        raise ExampleError(f"{where} 'tool_call_id' must be text, found {_kind(message['tool_call_id'])}.")


def _check_keys(where: str, role: str, message: dict[str, Any]) -> None:
    for key in sorted(message.keys() - KEYS_OF_ALL - KEYS_OF_ROLE.get(role, frozenset())):
        owner = next((role for role, keys in KEYS_OF_ROLE.items() if key in keys), None)
        if owner is None:
            raise ExampleError(f"{where} the key {_shown(key)} is not known.")
        raise ExampleError(f"{where} only the {owner}'s messages can have {_shown(key)}.")


def _check_assistant(where: str, message: dict[str, Any]) -> None:
    calls, refusal = message.get("tool_calls"), message.get("refusal")
    if calls is not None:
        _check_tool_calls(where, calls)
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int) or weight not in (0, 1):
        raise ExampleError(f"{where} 'weight' must be 0 or 1, found {_shown(weight)}.")
    if not isinstance(refusal, str | None):
        raise ExampleError(f"{where} 'refusal' must be text, found {_kind(refusal)}.")
    may_lack_content = message.get("content") is None and (calls is not None or refusal is not None)
    content = "" if may_lack_content else _content(where, message)
    if calls is None and not (content or refusal or "").strip():
        raise ExampleError(f"{where} 'content' is empty: there is nothing to learn.")


def _check_tool_calls(where: str, calls: object) -> None:
    if not isinstance(calls, list) or not calls:
        raise ExampleError(f"{where} 'tool_calls' must be a list with at least one call.")
    for number, call in enumerate(calls, start=1):
        _check_tool_call(f"{where} tool call {number}:", call)


def _check_tool_call(where: str, call: object) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise ExampleError(f"{where} expected an object with a 'function'.")
    if not isinstance(function.get("name"), str):
        raise ExampleError(f"{where} the function's 'name' must be text.")
    if not isinstance(call.get("id"), str | None):
        raise ExampleError(f"{where} 'id' must be text, found {_kind(call['id'])}.")
    if call.get("type") not in (None, "function"):
        raise ExampleError(f"{where} 'type' must be 'function', found {_shown(call['type'])}.")
    try:
        arguments = orjson.loads(_text(function.get("arguments"), f"{where} 'arguments'"))
    except orjson.JSONDecodeError as error:
        raise ExampleError(f"{where} 'arguments' must be a JSON object as text.") from error
    if not isinstance(arguments, dict):
        raise ExampleError(f"{where} 'arguments' must be a JSON object as text.")


def _content(where: str, message: dict[str, Any]) -> str:
    if "content" not in message:
        raise ExampleError(f"{where} 'content' is missing.")
    content = message["content"]
    if isinstance(content, list):
        return "".join(_text_part(where, part) for part in content)
    return _text(content, f"{where} 'content'")


def _text_part(where: str, part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text":
        return _text(part.get("text"), f"{where} 'text'")
    kind = part.get("type") if isinstance(part, dict) else _kind(part)
    raise ExampleError(f"{where} only parts of type 'text' can be learned from, found {_shown(kind)}.")


def _target(value: object, name: str) -> None:
    if not _text(value, name).strip():
        raise ExampleError(f"{name} is empty: there is nothing to learn.")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ExampleError(f"{name} must be text, found {_kind(value)}.")
    return value


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
