"""Explains why an example is invalid, in the wording of OpenAI's messages.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from finetune_trainer.data.read.jsonl import TOO_DEEP, repeated_key

MOST_IMAGES = 64  # per example, as in OpenAI's service
IMAGE_URLS = ("https://", "s3://", "data:image/jpeg;base64,", "data:image/png;base64,", "data:image/webp;base64,")

UNKNOWN_FORM = "Unexpected file format, expected either prompt/completion pairs or chat messages."
ROLES = ("system", "developer", "user", "assistant", "tool")
KEYS_OF_ALL = frozenset({"role", "content", "name"})
KEYS_OF_ROLE = {
    "assistant": frozenset({"weight", "tool_calls", "refusal", "reasoning_content"}),
    "tool": frozenset({"tool_call_id"}),
}


class ExampleError(ValueError):
    """Why an example is invalid, in one sentence."""


def explain(value: object, refusal: str) -> ExampleError:
    """Why a line's JSON value is not an example. `refusal`: the decoder's message, used if there is no better one."""
    try:
        _check(value)
    except ExampleError as error:
        return error
    except RecursionError:
        return ExampleError(TOO_DEEP)
    return ExampleError(refusal)


def check_prompt(value: object) -> None:
    """Raises ExampleError for what is no prompt that a model answers by itself."""
    if not isinstance(value, dict):
        raise ExampleError(f"Expected a JSON object, found {_kind(value)}.")
    messages = value.get("messages")
    if messages is None:
        if value.get("prompt") is None:
            raise ExampleError("Expected 'messages' that end with the user's, and fields for graders beside them.")
        _target(value["prompt"], "prompt")
    elif not isinstance(messages, list) or not messages:
        raise ExampleError("'messages' must be a list with at least one message.")
    else:
        _check_asked(messages)
    _check_tools(value)


def unmatched_tool_call(messages: Sequence[Any]) -> str | None:
    """What is wrong with the order of tool calls with an id and their results; None if nothing is."""
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
    # The last message may be the call itself, which is then learned.
    return _unanswered(waiting) if waiting and max(waiting.values()) < len(messages) else None


def _unanswered(waiting: dict[str, int]) -> str:
    call, number = next(iter(waiting.items()))
    return f"Message {number}: no tool message answers its tool call {_shown(call)}."


def _check(value: object) -> None:
    if not isinstance(value, dict):
        raise ExampleError(f"Expected a JSON object, found {_kind(value)}.")
    if value.get("messages") is not None:
        _check_chat(value)
    elif value.get("chosen") is not None and value.get("rejected") is not None:
        _check_sides(value, "prompt", "chosen", "rejected")
    elif value.get("preferred_output") is not None and value.get("non_preferred_output") is not None:
        _check_input(value)
    elif value.get("prompt") is not None and value.get("completion") is not None:
        _check_completion(value)
    else:
        raise ExampleError(UNKNOWN_FORM)
    _check_tools(value)


def _check_asked(messages: list[Any]) -> None:
    for number, message in enumerate(messages, start=1):
        _check_message(f"Message {number}:", message)
        content = message["content"] if message["role"] == "user" else None
        if isinstance(content, list) and any(part["type"] == "image_url" for part in content):
            raise ExampleError(f"Message {number}: images can't be learned from with method.type RFT or Distillation.")
    if messages[-1]["role"] != "user":
        raise ExampleError(
            "The last message must be from the user: the model writes the answer itself. What graders compare it with "
            "belongs into a field of its own beside 'messages'."
        )
    if mismatch := unmatched_tool_call(messages):
        raise ExampleError(mismatch)


def _check_completion(value: dict[str, Any]) -> None:
    prompt, completion = value["prompt"], value["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        given = [
            {**message, "weight": 0} if isinstance(message, dict) and message.get("role") == "assistant" else message
            for message in prompt
        ]
        for message in prompt:
            if isinstance(message, dict) and message.get("role") == "assistant":
                _check_weight("prompt:", message)
        _check_messages([*given, *completion])
        return
    _text(prompt, "prompt")
    _target(completion, "completion")


def _check_input(value: dict[str, Any]) -> None:
    """OpenAI's preference pairs."""
    given = value.get("input")
    if not isinstance(given, dict) or not isinstance(given.get("messages"), list):
        raise ExampleError("'input' must be an object with 'messages'.")
    _check_tools(given)
    for name in ("preferred_output", "non_preferred_output"):
        if not isinstance(value[name], list):
            raise ExampleError(f"'{name}' must be a list of messages, found {_kind(value[name])}.")
    _check_sides({**value, "input": given["messages"]}, "input", "preferred_output", "non_preferred_output")


def _check_sides(value: dict[str, Any], prompt_key: str, better: str, worse: str) -> None:
    prompt, chosen, rejected = value.get(prompt_key), value[better], value[worse]
    if chosen == rejected:
        raise ExampleError(f"'{better}' and '{worse}' are the same: there is no preference to learn.")
    if prompt is None:
        prompt, chosen, rejected = _split_common(chosen, rejected, better, worse)
    elif isinstance(chosen, list) and isinstance(rejected, list):
        prompt, chosen, rejected = _without_prompt(prompt, chosen, rejected, better, worse)
    if isinstance(prompt, str):
        _target(chosen, better)
        _target(rejected, worse)
        return
    if not isinstance(prompt, list) or not prompt:
        raise ExampleError(f"'{prompt_key}' must be text or a list with at least one message.")
    for name, side in ((better, chosen), (worse, rejected)):
        if not isinstance(side, list):
            raise ExampleError(f"'{name}' must be a list of messages as '{prompt_key}' is, found {_kind(side)}.")
        if not side:
            raise ExampleError(f"'{name}' has no message of its own: there is no preference to learn.")
        _check_messages([*prompt, *side])
        for message in side:
            if message["role"] == "tool":
                raise ExampleError(
                    f"'{name}' holds a tool's result, which would be learned as if the assistant had written it. "
                    f"Compare the messages before it or those after it: what both have before goes to '{prompt_key}'."
                )
            if message["role"] != "assistant":
                raise ExampleError(f"'{name}' holds a message of the {message['role']}: only the assistant answers.")


def _split_common(chosen: object, rejected: object, better: str, worse: str) -> tuple[Any, Any, Any]:
    """Without a prompt, the common start of the two conversations is the prompt."""
    for name, side in ((better, chosen), (worse, rejected)):
        if not isinstance(side, list):
            raise ExampleError(f"'{name}' without a 'prompt' must be a list of messages, found {_kind(side)}.")
    assert isinstance(chosen, list)
    assert isinstance(rejected, list)
    pairs = enumerate(zip(chosen, rejected, strict=False))
    common = next((position for position, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
    if not common:
        raise ExampleError(f"'{better}' and '{worse}' have no message in common that they answer to.")
    return chosen[:common], chosen[common:], rejected[common:]


def _without_prompt(
    prompt: Any, chosen: list[Any], rejected: list[Any], better: str, worse: str
) -> tuple[Any, Any, Any]:
    """Split two conversations that repeat the prompt, or that answer a text prompt."""
    if isinstance(prompt, list):
        count = len(prompt)
        repeated = bool(prompt) and chosen[:count] == prompt == rejected[:count]
        return (prompt, chosen[count:], rejected[count:]) if repeated else (prompt, chosen, rejected)
    if not isinstance(prompt, str):
        return prompt, chosen, rejected
    pairs = enumerate(zip(chosen, rejected, strict=False))
    common = next((position for position, (one, other) in pairs if one != other), 0)
    if not common:
        return [{"role": "user", "content": prompt}], chosen, rejected
    if not any(isinstance(message, dict) and message.get("content") == prompt for message in chosen[:common]):
        raise ExampleError(f"'prompt' is not what '{better}' and '{worse}' begin with.")
    return chosen[:common], chosen[common:], rejected[common:]


def _check_chat(value: dict[str, Any]) -> None:
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise ExampleError("'messages' must be a list with at least one message.")
    _check_messages(messages)


def _check_tools(value: dict[str, Any]) -> None:
    tools = value.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ExampleError("'tools' must be a list of objects.")
    if not isinstance(value.get("parallel_tool_calls"), bool | None):
        raise ExampleError("'parallel_tool_calls' must be true or false.")


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise ExampleError("There must be at least one message.")
    for number, message in enumerate(messages, start=1):
        _check_message(f"Message {number}:", message)
    if messages[-1]["role"] != "assistant":
        raise ExampleError("The last message must be from the assistant.")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        raise ExampleError("There must be at least one assistant message with a weight other than 0.")
    images = sum(
        part["type"] == "image_url"
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
    if images > MOST_IMAGES:
        raise ExampleError(f"The example has {images} images; the maximum is {MOST_IMAGES}.")
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
        _content(where, message, images=role == "user")
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
    _check_weight(where, message)
    for name in ("refusal", "reasoning_content"):
        if not isinstance(message.get(name), str | None):
            raise ExampleError(f"{where} '{name}' must be text, found {_kind(message[name])}.")
    may_lack_content = message.get("content") is None and (calls is not None or refusal is not None)
    content = "" if may_lack_content else _content(where, message)
    if refusal and content.strip():
        raise ExampleError(f"{where} 'content' and 'refusal' are both there. Keep the one that the model should say.")
    if calls is None and not (content or refusal or "").strip():
        raise ExampleError(f"{where} 'content' is empty: there is nothing to learn.")


def _check_weight(where: str, message: dict[str, Any]) -> None:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int) or weight not in (0, 1):
        raise ExampleError(f"{where} 'weight' must be 0 or 1, found {_shown(weight)}.")


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
    if repeated := repeated_key(function["arguments"]):
        raise ExampleError(f"{where} 'arguments': {repeated}")


def _content(where: str, message: dict[str, Any], *, images: bool = False) -> str:
    if "content" not in message:
        raise ExampleError(f"{where} 'content' is missing.")
    content = message["content"]
    if isinstance(content, list):
        return "".join(_part(where, part, images=images) for part in content)
    return _text(content, f"{where} 'content'")


def _part(where: str, part: object, *, images: bool) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind == "text":
        return _text(part.get("text"), f"{where} 'text'")
    if isinstance(part, dict) and kind == "image_url" and images:
        _check_image(where, part.get("image_url"))
        return ""
    allowed = "'text' and 'image_url'" if images else "'text'"
    found = _shown(kind) if isinstance(part, dict) else _kind(part)
    raise ExampleError(f"{where} only parts of type {allowed} can be learned from, found {found}.")


def _check_image(where: str, image: object) -> None:
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        raise ExampleError(f"{where} 'image_url' must be an object with a 'url'.")
    if not image["url"].startswith(IMAGE_URLS):
        raise ExampleError(
            f"{where} an image must be an https:// or s3:// URL, or a data URI of a JPEG, PNG or WEBP in base64, found "
            f"{_shown(image['url'])}."
        )
    if image.get("detail", "auto") not in ("low", "high", "auto"):
        raise ExampleError(f"{where} 'detail' must be low, high or auto, found {_shown(image['detail'])}.")


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
    """A value of the file, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
