"""OpenAI's data, a line each, as lines of our datasets: the prompt as messages, a reference, the item's fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_grading.exact_json import parse_json
from finetune_grading.graders.interface import CompiledGrader
from finetune_grading.openai_graders.documents import Message
from finetune_grading.sample import MissingVariableError, Sample
from finetune_grading.templates import render, resolve
from finetune_trainer.data.read.jsonl import TOO_DEEP, LineError
from finetune_trainer.data.read.records import read_records
from finetune_trainer.openai_evals.documents import InputMessages
from finetune_trainer.openai_evals.variables import renamed
from finetune_trainer.outputs.endpoint_outputs import read_calls
from finetune_trainer.outputs.heldout import missing_fields, parse_exactly, to_held_out

NO_REFERENCE = "(none)"
"""The reference where no criterion has one; no imported grader reads it."""
_NO_SAMPLE = Sample("")
_COUNTS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Prompting:
    """How the prompt of a line is made, in translated templates; None: as the line's own sample has it."""

    messages: InputMessages | None
    tools: Sequence[Mapping[str, Any]] = ()
    reference: str | None = None


@dataclass(frozen=True)
class ImportedLine:
    """A line of the dataset, and of the outputs where there are some."""

    number: int
    example: bytes
    output: bytes | None


def read_data(file: Path) -> Iterator[tuple[int, object] | LineError]:
    """The JSON values of a file. Raises OSError."""
    for record in read_records(file):
        parsed = record if isinstance(record, LineError) else parse_exactly(*record)
        yield parsed if isinstance(parsed, LineError) else (parsed.line, parsed.value)


def read_content(content: Sequence[object]) -> Iterator[tuple[int, object] | LineError]:
    """The entries of a run's file_content, counted from 1."""
    for number, value in enumerate(content, start=1):
        try:
            parsed = parse_exactly(number, _line(value))
        except RecursionError:
            parsed = LineError(number, TOO_DEEP)
        yield parsed if isinstance(parsed, LineError) else (parsed.line, parsed.value)


def import_lines(
    data: Iterable[tuple[int, object] | LineError],
    prompting: Prompting,
    graders: Sequence[CompiledGrader],
    with_outputs: bool,
) -> Iterator[ImportedLine | LineError]:
    """Every line as our dataset has it, read again as the evaluation will read it; or what is wrong with it."""
    for one in data:
        if isinstance(one, LineError):
            yield one
            continue
        number, value = one
        try:
            line = _to_line(number, value, prompting, with_outputs)
            errors: list[LineError] = list(
                missing_fields(to_held_out(number, line.example, parse_json(line.example.decode())), graders)
            )
        except (ValueError, MissingVariableError) as error:
            yield LineError(number, str(error))
            continue
        if errors:
            yield from errors
        else:
            yield line


def item_of(value: object) -> Mapping[str, Any]:
    """Raises ValueError."""
    if isinstance(value, Mapping):
        item = value.get("item", value.get("datasource_item"))
        if isinstance(item, Mapping):
            return item
    raise ValueError('Expected {"item": {...}}, as the Evals API takes data, or an output item of a run.')


def sample_of(value: object) -> Mapping[str, Any] | None:
    """An output that is there already. Raises ValueError."""
    sample = value.get("sample") if isinstance(value, Mapping) else None
    if sample is not None and not isinstance(sample, Mapping):
        raise ValueError("`sample` must be an object.")
    return sample


def _to_line(number: int, value: object, prompting: Prompting, with_outputs: bool) -> ImportedLine:
    item, sample = renamed(item_of(value)), sample_of(value)
    messages = _prompt(item, sample, prompting)
    messages.append({"role": "assistant", "content": _reference(item, prompting.reference)})
    example = {"messages": messages} | ({"tools": list(prompting.tools)} if prompting.tools else {}) | item
    return ImportedLine(number, _line(example), _output(sample) if with_outputs else None)


def _prompt(item: Mapping[str, Any], sample: Mapping[str, Any] | None, prompting: Prompting) -> list[dict[str, Any]]:
    inputs = prompting.messages
    if inputs is None:
        asked = None if sample is None else sample.get("input")
        return _messages(asked, "sample.input", str)
    if inputs.template is not None:
        return [
            {"role": one.role, "content": _content(one.content, lambda text: render(text, item, _NO_SAMPLE))}
            for one in inputs.template
        ]
    assert inputs.item_reference is not None, "checked before"
    return _messages(resolve(inputs.item_reference, item, _NO_SAMPLE), inputs.item_reference, str)


def _messages(value: object, place: str, write: Callable[[str], str]) -> list[dict[str, Any]]:
    """Messages that a line has. Raises ValueError."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError(f"{place} must be a list of messages.")
    return [
        {key: content for key, content in one.items() if key != "type" and content is not None}
        | ({"content": _content(one["content"], write)} if one.get("content") is not None else {})
        for one in value
    ]


def rewrite(message: Message, write: Callable[[str], str]) -> Message:
    """The message with other texts. Raises ValueError."""
    return message.model_copy(update={"content": _content(message.content, write)})


def _content(content: object, write: Callable[[str], str]) -> str | list[dict[str, Any]]:
    """As chat messages have it. Raises ValueError."""
    if isinstance(content, str):
        return write(content)
    if isinstance(content, list):
        return [_part(part, write) for part in content]
    return [_part(content, write)]


def _part(part: object, write: Callable[[str], str]) -> dict[str, Any]:
    match part:
        case str(text) | {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return {"type": "text", "text": write(text)}
        case {"type": "input_image", "image_url": str(url), **image}:
            return _image(url, image, write)
        case {"type": "image_url", "image_url": {"url": str(url), **image}}:
            return _image(url, image, write)
        case {"type": str(kind)}:
            raise ValueError(f"content of type {kind[:40]!r} is not supported: a prompt has text and images.")
    raise ValueError("a message's content must be text, or parts with text and images.")


def _image(url: str, image: Mapping[Any, Any], write: Callable[[str], str]) -> dict[str, Any]:
    detail = {"detail": image["detail"]} if image.get("detail") else {}
    return {"type": "image_url", "image_url": {"url": write(url), **detail}}


def _reference(item: Mapping[str, Any], template: str | None) -> str:
    """For people who read the samples; an assistant's message can't be empty."""
    text = NO_REFERENCE if template is None else render(template, item, _NO_SAMPLE)
    return text if text.strip() else NO_REFERENCE


def _output(sample: Mapping[str, Any] | None) -> bytes:
    """A line of `outputs`. Raises ValueError."""
    if sample is None:
        raise ValueError("The line has no `sample`, and lines before it have one.")
    message = _last_message(sample)
    text = sample.get("output_text", message.get("content"))
    tools = sample.get("output_tools", message.get("tool_calls"))
    if not isinstance(text, str) and (text is not None or not tools):
        raise ValueError("`sample` has no output: neither `output_text` nor a message in `choices` or `output`.")
    if tools is not None and read_calls(tools) is None:
        raise ValueError("`sample.output_tools` must be a list of tool calls as OpenAI's messages have them.")
    counts = {name: count for name, count in _usage(sample).items() if name in _COUNTS and count is not None}
    line = {"output_text": text or "", "output_tools": tools, "usage": counts}
    return _line({key: value for key, value in line.items() if value or key == "output_text"})


def _usage(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = sample.get("usage")
    return usage if isinstance(usage, Mapping) else {}


def _last_message(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of `choices`, as completions have them, or of `output`, as output items have them."""
    match sample:
        case {"choices": [{"message": Mapping() as message}, *_]} | {"output": [*_, Mapping() as message]}:
            return message
    return {}


def _line(value: object) -> bytes:
    """Whole numbers stay exact, and keys in their order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
