"""Which parts of a prompt the model's chat template leaves out, found once by conversations that have marks in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from finetune_trainer.data.encode.chat_template import TemplateError, render_chat
from finetune_trainer.process.failures import DiagnosedError


class PromptPart(Enum):
    """A part that templates may silently leave out, and what a message calls it."""

    TOOLS = "`tools`"
    CALLS = "`tool_calls` of the assistant's messages"
    ANSWERS = "messages of the role `tool`"
    SYSTEM = "messages of the role `system`"
    DEVELOPER = "messages of the role `developer`"


def parts_left_out(tokenizer: Any) -> frozenset[PromptPart]:
    """The parts whose marks are in no prompt. One that the template refuses isn't left out: it refuses requests too."""
    return frozenset(part for part, prompts in _PROMPTS.items() if _is_left_out(tokenizer, prompts))


def part_of(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[object] | None, parts: frozenset[PromptPart]
) -> PromptPart | None:
    """The first of `parts` that a prompt of OpenAI's messages and tools has."""
    has = {
        PromptPart.TOOLS: bool(tools),
        PromptPart.CALLS: any(one.get("tool_calls") for one in messages),
        **{part: any(one.get("role") == role for one in messages) for part, role in _ROLES.items()},
    }
    return next((part for part in PromptPart if part in parts and has[part]), None)


_ROLES = {PromptPart.ANSWERS: "tool", PromptPart.SYSTEM: "system", PromptPart.DEVELOPER: "developer"}
_MARK = "qzpartz"
_ID = "call00000"  # nine letters and digits, as Mistral's templates have it
_QUESTION: Mapping[str, Any] = {"role": "user", "content": "x"}


def _call(name: str) -> dict[str, Any]:
    called = {"id": _ID, "type": "function", "function": {"name": name, "arguments": {"x": "y"}}}
    return {"role": "assistant", "content": "", "tool_calls": [called]}


def _answer(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": _ID, "name": "f"}


def _tool(name: str) -> dict[str, Any]:
    takes = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": ["x"]}
    return {"type": "function", "function": {"name": name, "description": "x", "parameters": takes}}


_PROMPTS: Mapping[PromptPart, Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None]]] = {
    PromptPart.TOOLS: [([_QUESTION], [_tool(_MARK)])],
    # Some templates show calls only beside tools.
    PromptPart.CALLS: [([_QUESTION, _call(_MARK), _answer("y")], tools) for tools in ([_tool("f")], None)],
    PromptPart.ANSWERS: [([_QUESTION, _call("f"), _answer(_MARK)], tools) for tools in ([_tool("f")], None)],
    PromptPart.SYSTEM: [([{"role": "system", "content": _MARK}, _QUESTION], None)],
    PromptPart.DEVELOPER: [([{"role": "developer", "content": _MARK}, _QUESTION], None)],
}


def _is_left_out(tokenizer: Any, prompts: Sequence[tuple[Any, Any]]) -> bool:
    rendered = [_render(tokenizer, messages, tools) for messages, tools in prompts]
    return all(text is not None and _MARK not in text for text in rendered)


def _render(tokenizer: Any, messages: Any, tools: Any) -> str | None:
    try:
        return render_chat(tokenizer, messages, tools, add_generation_prompt=True)
    except (TemplateError, DiagnosedError, MemoryError):
        return None
