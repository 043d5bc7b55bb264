"""The prompts of spec.generate, and the line of a dataset that a prompt and a completion make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from finetune_grading.exact_json import write_json
from finetune_grading.graders.interface import CompiledGrader
from finetune_grading.sample import REFERENCE_TOOLS, Sample
from finetune_trainer.data.read.conversions import MEANT, READ
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.data.read.example_errors import ExampleError
from finetune_trainer.data.read.examples import ChatExample
from finetune_trainer.data.read.jsonl import LONGEST_LINE_BYTES, LineError
from finetune_trainer.data.read.reader import parse_example
from finetune_trainer.data.read.reinforcement import has_no_answer, read_prompt
from finetune_trainer.outputs.heldout import (
    REFERENCE,
    HeldOutExample,
    Prompt,
    exact_records,
    missing_fields,
    refuse,
    to_held_out,
)

GENERATED = "generated"
"""The key of a line with where it comes from."""
_NOT_COPIED = READ | MEANT | {GENERATED, REFERENCE, REFERENCE_TOOLS}
"""An Evaluation calls the completion itself `reference`."""
MOST_LINE_BYTES = LONGEST_LINE_BYTES - 64 * 1024
"""Of a line without the key `generated`, for which the rest is more than enough."""


@dataclass(frozen=True)
class PromptLine:
    """A prompt of a file, and what else its line has."""

    file: DataFile
    example: HeldOutExample
    begin: str | list[Any]
    """The prompt as a line has it: text, or messages in OpenAI's form."""
    fields: Mapping[str, Any]
    """The other fields of the line, with the tools."""

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file.uri}:{self.example.line}"


def read_prompts(files: Sequence[DataFile], graders: Sequence[CompiledGrader], most: int | None) -> list[PromptLine]:
    """The first prompts of these files. The last answer of a line, if it has one, is for graders alone.

    Raises DiagnosedError (DatasetInvalid), also for a line without a field that a grader reads.
    """
    found: list[PromptLine] = []
    for file in files:
        if most is not None and len(found) >= most:
            break
        errors: list[LineError] = []
        for one in _lines(file):
            if isinstance(one, LineError):
                errors.append(one)
                continue
            if found and isinstance(found[0].begin, str) != isinstance(one.begin, str):
                errors.append(LineError(one.example.line, f"Its prompt is {_form(one)}, and others are not."))
            errors += missing_fields(one.example, graders)
            found.append(one)
            if len(found) == most:
                break
        if not errors and not found:
            errors.append(LineError(1, "The file is empty."))
        refuse(file.uri, errors)
    return found


def to_line(prompt: PromptLine, sample: Sample, generated: Mapping[str, Any]) -> bytes | None:
    """The line with this completion, and in the key `generated` where it comes from; None if training can't read it.

    A teacher's output is untrusted: what it calls is written down, and no tool is ever run.
    """
    if isinstance(prompt.begin, str):
        body: dict[str, Any] = {"prompt": prompt.begin, "completion": sample.output_text}
        is_known = not sample.tool_calls
    else:
        answer: dict[str, Any] = {"role": "assistant"}
        if sample.output_text.strip() or not sample.tool_calls:
            answer["content"] = sample.output_text
        if sample.tool_calls:
            answer["tool_calls"] = sample.output_tools
        body = {"messages": [*prompt.begin, answer]}
        is_known = all(call.name in _tool_names(prompt) for call in sample.tool_calls)
    if not is_known:
        return None
    try:
        line = write_json({**body, **prompt.fields, GENERATED: generated}, sort_keys=False).encode()
        if len(line) - len(write_json(generated).encode()) > MOST_LINE_BYTES:
            return None
        parse_example(line)
    except (ExampleError, TypeError, ValueError):
        return None
    return line


def _lines(file: DataFile) -> Iterator[PromptLine | LineError]:
    for parsed in exact_records(file.path):
        if isinstance(parsed, LineError):
            yield parsed
            continue
        line, record = parsed
        try:
            found = _to_prompt(file, record.line, line, record.value)
            yield replace(found, example=replace(found.example, uri=file.uri))
        except ExampleError as error:
            yield LineError(record.line, str(error))


def _to_prompt(file: DataFile, number: int, line: bytes, value: object) -> PromptLine:
    """Raises ExampleError."""
    item = dict(value) if isinstance(value, dict) else {}
    fields = {name: field for name, field in item.items() if name not in _NOT_COPIED}
    if not has_no_answer(line):
        example, read = to_held_out(number, line, value), parse_example(line)
        if not isinstance(read, ChatExample):
            assert isinstance(example.prompt.content, str), "it has the form of read"
            return PromptLine(file, example, example.prompt.content, fields)
        return PromptLine(file, example, msgspec.to_builtins(read.messages[:-1]), {**fields, **_tools(read)})
    asked = read_prompt(number, line)
    if isinstance(asked, LineError):
        raise ExampleError(asked.message)
    if isinstance(asked.prompt, str):
        return PromptLine(file, HeldOutExample(number, Prompt(asked.prompt), item), asked.prompt, fields)
    chat = ChatExample(asked.prompt, asked.tools)
    prompt = Prompt(tuple(chat.to_template()), tuple(chat.tools or ()), tuple(chat.images()), chat.arguments())
    begin = msgspec.to_builtins(chat.messages)
    return PromptLine(file, HeldOutExample(number, prompt, item), begin, {**fields, **_tools(chat)})


def _tools(example: ChatExample) -> dict[str, Any]:
    return {"tools": example.tools} if example.tools else {}


def _tool_names(prompt: PromptLine) -> set[object]:
    functions = (tool.get("function") for tool in prompt.example.prompt.tools)
    return {function.get("name") for function in functions if isinstance(function, Mapping)}


def _form(prompt: PromptLine) -> str:
    return "text" if isinstance(prompt.begin, str) else "chat messages"
