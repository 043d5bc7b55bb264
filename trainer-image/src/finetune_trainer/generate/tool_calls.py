"""Tool calls: found in what a model says, and compared with those of a reference.

transformers' response templates say how a model writes its calls. One comes with the model, or TRL knows it by the
model's chat template, or the chat template shows one of the common formats.

https://huggingface.co/docs/transformers/main/en/chat_response_parsing
"""

# ruff: noqa: RUF001 (DeepSeek's tokens have wide bars)

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from finetune_api.evaluation import ToolCallMatch

ResponseTemplate = Mapping[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool; the arguments are a JSON value, in practice an object."""

    name: str
    arguments: Any

    def to_wire(self) -> dict[str, Any]:
        """As OpenAI's messages have it: the arguments are JSON as text."""
        arguments = orjson.dumps(self.arguments, option=orjson.OPT_SORT_KEYS).decode()
        return {"type": "function", "function": {"name": self.name, "arguments": arguments}}

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> ToolCall:
        """A call of OpenAI's messages, already checked."""
        return cls(value["function"]["name"], orjson.loads(value["function"]["arguments"]))


def _region(calls: Mapping[str, Any]) -> ResponseTemplate:
    """A response template of calls, with text around them, for prompts that begin nothing of the answer."""
    text = {"content": "text", "repeats": True, "join": "\n"}
    return {"start_anchor_pattern": r"\Z", "fields": {"tool_calls": {"repeats": True, **calls}, "content": text}}


# What a chat template has in it, and how such a model writes its calls. The first that matches counts.
COMMON_FORMATS: Sequence[tuple[str, ResponseTemplate]] = (
    # Qwen 2.5 and 3, Hermes, SmolLM 3: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, one for each call
    ("<tool_call>", _region({"open": "<tool_call>", "close": "</tool_call>", "content": "json"})),
    # DeepSeek V3: a line with the name, and the arguments in a fence, for each call
    (
        "<｜tool▁sep｜>",
        _region(
            {
                "open_pattern": r"<｜tool▁call▁begin｜>function<｜tool▁sep｜>(?P<name>[^\n]+)\n```json\n",
                "close_pattern": r"\n```(?:<｜tool▁call▁end｜>)?|$",
                "content": "json",
                "transform": {"name": "{name}", "arguments": "{content}"},
            }
        ),
    ),
    # Mistral since 2025: [TOOL_CALLS]name[ARGS]{...}, one for each call
    (
        "[ARGS]",
        _region(
            {
                "open_pattern": r"\[TOOL_CALLS\]\s*(?P<name>[^\[\s]+)\s*(?:\[CALL_ID\][^\[]*)?\[ARGS\]",
                "close_pattern": r"(?=\[TOOL_CALLS\])|</s>|$",
                "content": "json",
                "transform": {"name": "{name}", "arguments": "{content}"},
            }
        ),
    ),
    # Mistral before: [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]
    ("[TOOL_CALLS]", _region({"open": "[TOOL_CALLS]", "close_pattern": "</s>|$", "content": "json"})),
    # Llama 3.1 and later: {"name": ..., "parameters": {...}}, several with a semicolon between them
    (
        "<|eot_id|>",
        _region(
            {
                "open_pattern": r'(?:<\|python_tag\|>)?(?=\{\s*"(?:type|name)"\s*:)',
                "close_pattern": r"<\|eo[tm]_id\|>|;\s*(?=\{)|$",
                "content": "json",
            }
        ),
    ),
)


def response_template(tokenizer: Any) -> ResponseTemplate | None:
    """How a model writes its calls; None when that is not known."""
    if own := getattr(tokenizer, "response_template", None):
        return own  # type: ignore[no-any-return]
    if not isinstance(tokenizer.chat_template, str):
        return None
    from trl.chat_template_utils import add_response_schema

    try:
        return add_response_schema(copy.copy(tokenizer)).response_template  # type: ignore[no-any-return]
    except ValueError:  # a chat template that TRL does not know
        return next((format for mark, format in COMMON_FORMATS if mark in tokenizer.chat_template), None)


def parse_tool_calls(
    template: ResponseTemplate, output: str, prompt: str, tools: Sequence[Mapping[str, Any]]
) -> tuple[str, tuple[ToolCall, ...]]:
    """What the model says beside its calls, and the calls. `output` and `prompt` have their special tokens.

    An output that is not of the format is text, without calls.
    """
    from transformers.utils.chat_parsing import parse_response

    try:
        message = parse_response(output, dict(template), prefix=prompt, tools=[dict(tool) for tool in tools])
        calls = to_calls(message.get("tool_calls", []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return output, ()
    return (str(message.get("content", "")), calls) if calls else (output, ())


def to_calls(values: Any) -> tuple[ToolCall, ...]:
    """The calls in the values that a response template makes of them. Raises KeyError, TypeError or ValueError."""
    return tuple(_to_call(value) for value in _flat(values))


def calls_match(found: Sequence[ToolCall], expected: Sequence[ToolCall], match: ToolCallMatch) -> bool:
    """Whether the calls are those expected, in any order. None found where none is expected match, too."""
    if len(found) != len(expected):
        return False
    accepted = [[_accepts(want, call, match) for call in found] for want in expected]
    return _all_paired(accepted)


def _all_paired(accepted: Sequence[Sequence[bool]]) -> bool:
    """Whether every row can have a column of its own among those that it accepts (Kuhn's algorithm)."""
    taken_by: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(accepted[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in taken_by or place(taken_by[column], seen):
                    taken_by[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(accepted)))


def _accepts(expected: ToolCall, found: ToolCall, match: ToolCallMatch) -> bool:
    if expected.name != found.name:
        return False
    if match.arguments == "Ignore":
        return True
    compare: Callable[[Any, Any], bool] = json_equal if match.arguments == "Exact" else json_contains
    ignored = frozenset(match.ignore_arguments)
    return compare(_without(found.arguments, ignored), _without(expected.arguments, ignored))


def json_equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0, and not true; the order of keys does not count."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(json_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(json_equal(*pair) for pair in zip(one, other, strict=True))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def json_contains(whole: Any, part: Any) -> bool:
    """Whether a JSON value has all that the other has: objects, at any depth, may have more keys."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and json_contains(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(json_contains(*pair) for pair in zip(whole, part, strict=True))
    return json_equal(whole, part)


def _without(arguments: Any, ignored: frozenset[str]) -> Any:
    if not isinstance(arguments, dict):
        return arguments
    return {key: value for key, value in arguments.items() if key not in ignored}


def _flat(values: Any) -> list[Any]:
    """Some formats have a list of calls where others have a call."""
    return [call for value in values for call in (value if isinstance(value, list) else [value])]


def _to_call(value: Mapping[str, Any]) -> ToolCall:
    """A call of any of the formats. Raises KeyError, TypeError or ValueError."""
    function = value.get("function", value)
    arguments = function["arguments"] if "arguments" in function else function["parameters"]
    if isinstance(arguments, str):
        arguments = orjson.loads(arguments)
    if not isinstance(function["name"], str):
        raise TypeError("the name of a call is no text")
    return ToolCall(function["name"], arguments)
