"""Tool calls in a model's output.

A response template of transformers describes how a model writes its calls. It comes with the model, or TRL knows it for
the model's chat template, or the chat template contains the marker of a common format.

https://huggingface.co/docs/transformers/main/en/chat_response_parsing
"""

# ruff: noqa: RUF001 (DeepSeek's tokens have wide bars)

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from finetune_grading.exact_json import parse_json
from finetune_grading.tool_calls import ToolCall

ResponseTemplate = Mapping[str, Any]


def _region(calls: Mapping[str, Any]) -> ResponseTemplate:
    """A response template for calls with text around them, for prompts without the start of the response."""
    text = {"content": "text", "repeats": True, "join": "\n"}
    return {"start_anchor_pattern": r"\Z", "fields": {"tool_calls": {"repeats": True, **calls}, "content": text}}


# A marker in the chat template, and how such a model writes its calls. The first match counts.
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
    """How a model writes its tool calls; None if unknown."""
    if own := getattr(tokenizer, "response_template", None):
        return own  # type: ignore[no-any-return]
    if not isinstance(tokenizer.chat_template, str):
        return None
    from trl.chat_template_utils import add_response_schema

    try:
        return add_response_schema(copy.copy(tokenizer)).response_template  # type: ignore[no-any-return]
    except ValueError:  # TRL does not know the chat template.
        return next((format for mark, format in COMMON_FORMATS if mark in tokenizer.chat_template), None)


def parse_tool_calls(
    template: ResponseTemplate, output: str, prompt: str, tools: Sequence[Mapping[str, Any]]
) -> tuple[str, tuple[ToolCall, ...]]:
    """The text outside the tool calls, and the calls. `output` and `prompt` include their special tokens.

    An output that is not in the format is text without calls.
    """
    from transformers.utils.chat_parsing import parse_response

    try:
        message = parse_response(output, dict(template), prefix=prompt, tools=[dict(tool) for tool in tools])
        calls = to_calls(message.get("tool_calls", []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return output, ()
    return (str(message.get("content", "")), calls) if calls else (output, ())


def to_calls(values: Any) -> tuple[ToolCall, ...]:
    """The calls in the values parsed by a response template. Raises KeyError, TypeError or ValueError."""
    return tuple(_to_call(value) for value in _flat(values))


def _flat(values: Any) -> list[Any]:
    """The values flattened: some formats have a list of calls where others have one call."""
    return [call for value in values for call in (value if isinstance(value, list) else [value])]


def _to_call(value: Mapping[str, Any]) -> ToolCall:
    """A call in any of the formats. Raises KeyError, TypeError or ValueError."""
    function = value.get("function", value)
    arguments = function["arguments"] if "arguments" in function else function["parameters"]
    if isinstance(arguments, str):
        arguments = parse_json(arguments)
    if not isinstance(function["name"], str):
        raise TypeError("the name of a call is not text")
    call = ToolCall(function["name"], arguments)
    orjson.dumps(call.to_wire())  # Raises for what can't be serialized: nested too deeply, or with a lone surrogate.
    return call
