"""Finds what a chat template omits from an example, or renders as the assistant's text.

Renders the same conversation with a marker for each part; a missing marker means that the template drops that part.
Shapes repeat in a dataset, so each is rendered only once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from finetune_trainer.data.encode.chat_template import TemplateError, keeps_name
from finetune_trainer.data.read.examples import ChatExample, Example
from finetune_trainer.data.read.messages import (
    Assistant,
    Developer,
    Function,
    Message,
    System,
    Tool,
    ToolCall,
    User,
    content_text,
)

ADVICE = "Take it out of the line, or use a model whose chat template knows it, or give the model such a template."
_ROLES: dict[str, Any] = {"system": System, "developer": Developer, "user": User}
SHAPES_KEPT = 4096
_TAG = re.compile(r"(</?think>)")
_TAGS = {"<think>": "<think>\n", "</think>": "\n</think>\n\n"}
"""As models write them."""


class Rendered(Protocol):
    """A text with the spans that are trained on."""

    @property
    def text(self) -> str: ...
    @property
    def turns(self) -> Sequence[tuple[int, int]]: ...


Render = Callable[[Any, ChatExample], Sequence[Rendered]]


class MessageShape(NamedTuple):
    """Which parts a message has."""

    role: str
    text: tuple[str, ...] = ()
    """Its pieces: the tags of reasoning as written, and `""` for what is between, before and after them."""
    reasoning: bool = False
    calls: tuple[str | None, ...] = ()
    """The ids, numbered in the order in which they come."""
    answers: str | None = None
    """The id of the call that a tool answers."""
    learned: bool = False


@dataclass(frozen=True)
class Lost:
    """A part that the template omits."""

    position: int | None
    """Of its message; None: the tools."""
    part: str
    call: int | None = None


def refuse_lost(tokenizer: Any, example: ChatExample, render: Render) -> None:
    """Raises TemplateError for the first part that the template omits, or that would be trained on by mistake.

    Images are not looked for: vision.py counts them.
    """
    template = str(tokenizer.chat_template)
    found = _first_lost(tokenizer, template, _shape(example), _parts_of_tools(example), render)
    if found is not None:
        raise TemplateError(f"{_words(example, found)} {ADVICE}")


def names_left_out(tokenizer: Any, example: Example) -> Iterator[str]:
    """The roles whose messages have a `name` that the chat template leaves out. Of a tool's, the call has it."""
    named = (one for one in example.all_messages() if one.name is not None and not isinstance(one, Tool))
    for role in dict.fromkeys(_role(one) for one in named):
        if not keeps_name(tokenizer, role):
            yield role


def _role(message: Message) -> str:
    return str(type(message).__struct_config__.tag)


def _words(example: ChatExample, lost: Lost) -> str:
    if lost.position is None:
        return f"The model's chat template leaves out {lost.part}."
    message = example.messages[lost.position]
    where = f"message {lost.position + 1}"
    if lost.call is not None and isinstance(message, Assistant) and message.tool_calls:
        name = message.tool_calls[lost.call].function.name
        several = " (several at once, where a message has several)" if len(message.tool_calls) > 1 else ""
        return f"The model's chat template leaves out {lost.part} {name!r} in {where}{several}."
    role = _role(message)
    return f"The model's chat template {lost.part.format(where=where, role=role)}."


def _shape(example: ChatExample) -> tuple[MessageShape, ...]:
    ids: dict[str, str] = {}

    def numbered(name: str | None) -> str | None:
        return None if name is None else ids.setdefault(name, f"call{len(ids):05}")

    shapes = []
    for message in example.messages:
        role = _role(message)
        if isinstance(message, Assistant):
            text = _pieces(content_text(message.content) or message.refusal or "")
            calls = tuple(numbered(call.id) for call in message.tool_calls or ())
            reasons = bool(message.reasoning_content)
            shapes.append(MessageShape(role, text, reasons, calls, learned=message.weight == 1))
        else:
            text = ("",) if content_text(message.content).strip() else ()
            answers = numbered(message.tool_call_id) if isinstance(message, Tool) else None
            shapes.append(MessageShape(role, text, answers=answers))
    return tuple(shapes)


def _pieces(text: str) -> tuple[str, ...]:
    if "think>" not in text:
        return ("",) if text.strip() else ()
    return tuple(part if part in _TAGS else "" for part in _TAG.split(text) if part.strip())


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _first_lost(
    tokenizer: Any, chat_template: str, shapes: tuple[MessageShape, ...], tools: tuple[str, ...], render: Render
) -> Lost | None:
    marked = ChatExample([_marked(place, shape) for place, shape in enumerate(shapes)], _TOOLS if tools else None)
    try:
        rendered = render(tokenizer, marked)
    except TemplateError:  # it takes no such texts: then only the example itself can show it
        return None
    everything = "\0".join(one.text for one in rendered)
    learned = "\0".join(one.text[start:end] for one in rendered for start, end in one.turns)
    return next(_losses(shapes, tools, everything, learned), None)


def _losses(shapes: Sequence[MessageShape], tools: Sequence[str], everything: str, learned: str) -> Iterator[Lost]:
    last = max(place for place, shape in enumerate(shapes) if shape.learned)
    for place, shape in enumerate(shapes[: last + 1]):
        seen = learned if shape.learned else everything
        for call in range(len(shape.calls)):
            if _mark(place, f"f{call}") not in seen:
                yield Lost(place, "a call of", call)
            elif not all(_mark(place, f"{part}{call}") in seen for part in "kv"):
                yield Lost(place, "the arguments of a call of", call)
        missing = [
            number for number, piece in enumerate(shape.text) if not piece and _mark(place, f"t{number}") not in seen
        ]
        if any(not _is_reasoning(shape.text, number) for number in missing):
            beside = ", which stands beside its tool calls" if shape.calls else ""
            beside = beside or (", or a part of it that stands before reasoning" if len(shape.text) > 1 else "")
            part = "the text of {where}" if shape.role == "assistant" else "{where} ({role})"
            yield Lost(place, f"leaves out {part}{beside}")
        if learned != everything and not shape.learned and any(mark in learned for mark in _marks(place, shape)):
            yield Lost(place, "puts {where} ({role}) into a turn of the assistant's, where it would be learned")
        if shape.learned and (missing or (shape.reasoning and _mark(place, "r") not in seen)):
            yield Lost(place, "leaves out the reasoning of {where}")
    for part in tools:
        if _PARTS_OF_TOOLS[part] not in everything:
            yield Lost(None, part)


def _is_reasoning(text: Sequence[str], number: int) -> bool:
    return text[number + 1 : number + 2] == ("</think>",)


def _marks(place: int, shape: MessageShape) -> Iterator[str]:
    yield _mark(place, "r")
    yield from (_mark(place, f"t{number}") for number in range(len(shape.text)))
    yield from (_mark(place, f"{part}{call}") for part in "fkv" for call in range(len(shape.calls)))


def _mark(place: int, part: str) -> str:
    return f"qz{place}x{part}z"


_PARTS_OF_TOOLS = {
    "the tools": "qztoolxnz",
    "what the tools are described as": "qztoolxdz",
    "the parameters of tools": "qztoolxpz",
}
_NAME, _DESCRIPTION, _PARAMETER = _PARTS_OF_TOOLS.values()
_FUNCTION = {
    "name": _NAME,
    "description": _DESCRIPTION,
    "parameters": {
        "type": "object",
        "properties": {_PARAMETER: {"type": "string", "description": "x"}},
        "required": [_PARAMETER],
    },
}
_TOOLS: list[dict[str, Any]] = [{"type": "function", "function": _FUNCTION}]


def _parts_of_tools(example: ChatExample) -> tuple[str, ...]:
    """Which of the parts the tools have; of tools that are not functions, which no template knows, only the first."""
    if not example.tools:
        return ()
    functions = [tool["function"] for tool in example.tools if isinstance(tool.get("function"), dict)]
    described = any(function.get("description") for function in functions)
    parameters = [function.get("parameters") for function in functions]
    takes = any(isinstance(one, dict) and one.get("properties") for one in parameters)
    return tuple(part for part, there in zip(_PARTS_OF_TOOLS, (True, described, takes), strict=True) if there)


def _marked(place: int, shape: MessageShape) -> Any:
    """A message of this shape, whose parts are marks."""
    text = "".join(_TAGS.get(piece, _mark(place, f"t{number}")) for number, piece in enumerate(shape.text))
    if shape.role == "tool":
        return Tool(content=text, tool_call_id=shape.answers)
    if shape.role != "assistant":
        return _ROLES[shape.role](content=text)
    calls = [
        ToolCall(Function(_mark(place, f"f{number}"), _arguments(place, number)), id=name, type="function")
        for number, name in enumerate(shape.calls)
    ]
    return Assistant(
        content=text,
        reasoning_content=_mark(place, "r") if shape.reasoning else None,
        tool_calls=calls or None,
        weight=1 if shape.learned else 0,
    )


def _arguments(place: int, number: int) -> str:
    return f'{{"{_mark(place, f"k{number}")}": "{_mark(place, f"v{number}")}"}}'
