"""Lines of datasets, as bytes, and parts of them."""

from __future__ import annotations

import json
from typing import Any

from finetune_trainer.data.read.messages import Assistant, Function, Tool, ToolCall

GOOD = b'{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}\n'
USER = {"role": "user", "content": "2+2?"}
ASSISTANT = {"role": "assistant", "content": "4"}


def chat(*messages: object, **more: object) -> bytes:
    return json.dumps({"messages": list(messages), **more}).encode()


def call(arguments: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": arguments}}]}


def called(*ids: str) -> dict[str, object]:
    calls = [{"id": name, "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}} for name in ids]
    return {"role": "assistant", "tool_calls": calls}


def answer(name: str) -> dict[str, object]:
    return {"role": "tool", "tool_call_id": name, "content": "4"}


def _call(name: str) -> ToolCall:
    return ToolCall(Function("add", '{"a": 2}'), id=name, type="function")


def image(url: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def preference(messages: object, better: object, worse: object) -> bytes:
    """OpenAI's form."""
    return json.dumps(
        {"input": {"messages": messages}, "preferred_output": better, "non_preferred_output": worse}
    ).encode()


def pair(**sides: object) -> bytes:
    """TRL's form."""
    return json.dumps(sides).encode()


WORSE = {"role": "assistant", "content": "5"}
CALLED_A = Assistant(tool_calls=[_call("a")])
CALLED_A_AND_B = Assistant(tool_calls=[_call("a"), _call("b")])
ANSWER_A = Tool(content="4", tool_call_id="a")
CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}],
}
TOLD = {"role": "tool", "tool_call_id": "a", "content": "4"}
NO_WORDS = "no words"
KEYS = ["role", "content", "weight", "type", "text", "name", "function", "arguments", "id", "tool_call_id"]
