"""Held-out examples: the prompt that a model gets, the reference, and the fields that graders may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_grading.exact_json import parse_json
from finetune_grading.graders.interface import CompiledGrader
from finetune_grading.sample import REFERENCE_TOOLS, MissingVariableError, Sample
from finetune_grading.templates import render
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.encode import vision
from finetune_trainer.data.encode.chat_template import TemplateError, reads_images, text_tokenizer
from finetune_trainer.data.encode.placeholders import prompt_ids, prompt_text, refuse_literals
from finetune_trainer.data.images.images import ImageError, ImageStore
from finetune_trainer.data.read.data_files import corrected
from finetune_trainer.data.read.example_errors import ExampleError
from finetune_trainer.data.read.examples import ChatExample, CompletionExample
from finetune_trainer.data.read.formats import FORMAT_NAMES
from finetune_trainer.data.read.jsonl import (
    TOO_DEEP,
    LineError,
    Record,
    may_repeat_a_key,
    nests_too_deeply,
    parse,
    repeated_key,
)
from finetune_trainer.data.read.messages import ImageUrl
from finetune_trainer.data.read.reader import other_format, parse_example
from finetune_trainer.data.read.records import read_records
from finetune_trainer.process.failures import DiagnosedError

REFERENCE = "reference"
SHOWN_FIELDS = 10
SHOWN_LINES = 20


@dataclass(frozen=True)
class Prompt:
    """The input of a model: messages with the tools that it may call, or plain text."""

    content: str | tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    images: tuple[ImageUrl, ...] = ()
    arguments: Sequence[Sequence[str]] | None = field(default=None, compare=False)
    """The arguments of each message's tool calls, exactly as written in the dataset."""


@dataclass(frozen=True)
class HeldOutExample:
    """An example of the dataset, in a line counted from 1.

    `item`: the line's fields, and those of the reference: its text if it has any, and its tool calls in a chat.
    """

    line: int
    prompt: Prompt
    item: Mapping[str, Any]
    uri: str | None = None
    """The file, where examples are of several."""

    def error(self, message: str) -> LineError:
        """An error of this example."""
        return LineError(self.line, message, uri=self.uri)

    @property
    def reference(self) -> str | None:
        """The text of the last assistant message, or the completion; None when there are only tool calls."""
        return self.item.get(REFERENCE)

    @property
    def reference_tools(self) -> list[Mapping[str, Any]]:
        """The tool calls of the last assistant message, in OpenAI's form."""
        return list(self.item.get(REFERENCE_TOOLS, []))


def read_held_out(
    file: Path,
    uri: str,
    graders: Sequence[CompiledGrader],
    limit: int | None = None,
    templates: Sequence[str] = (),
) -> list[HeldOutExample]:
    """The first `limit` examples of a JSON Lines file; each must have the fields that graders and `templates` read.

    Raises DiagnosedError: InvalidSpec for a field that the spec reads and no example has, and DatasetInvalid,
    naming the first broken line.
    """
    examples: list[HeldOutExample] = []
    errors: list[LineError] = []
    for parsed in islice(exact_records(file), limit):
        if isinstance(parsed, LineError):
            errors.append(parsed)
            continue
        line, record = parsed
        try:
            example = to_held_out(record.line, line, record.value)
        except ExampleError as error:
            errors.append(LineError(record.line, str(error)))
            continue
        examples.append(example)
    if not examples:
        _refuse_wrong_format(file, uri)
    _refuse_wrong_fields(uri, examples, graders, templates)
    errors += (error for example in examples for error in missing_fields(example, graders, templates))
    errors.sort(key=lambda error: error.line)
    if not examples and not errors:
        errors.append(LineError(1, "The file is empty."))
    refuse(uri, errors)
    return examples


def exact_records(file: Path) -> Iterator[tuple[bytes, Record] | LineError]:
    """Each line of a JSON Lines file with its JSON value (parse_exactly), or its error."""
    for numbered in read_records(file):
        if isinstance(numbered, LineError):
            yield numbered
            continue
        parsed = parse_exactly(*numbered)
        yield parsed if isinstance(parsed, LineError) else (numbered[1], parsed)


def parse_exactly(number: int, line: bytes) -> Record | LineError:
    """The JSON value of a line with its whole numbers exact, or an error.

    Deep nesting is refused here: graders could not compare such values, and rows with them could not be written.
    """
    parsed = parse(number, line)
    if isinstance(parsed, LineError):
        return parsed
    if nests_too_deeply(parsed.value):
        return LineError(number, TOO_DEEP)
    if may_repeat_a_key(line) and (repeated := repeated_key(line)):
        return LineError(number, repeated)
    try:
        return Record(number, parse_json(line.decode()))
    except ValueError as error:
        return LineError(number, f"The line can't be read: {error}.")


def to_held_out(line: int, written: bytes, value: object) -> HeldOutExample:
    """The example in a line, of which graders get the JSON value. Raises ExampleError.

    The prompt is made from the line as it is written, so that it is the same text as in training.
    """
    example = parse_example(written)
    item = dict(value) if isinstance(value, dict) else {}
    for taken in (REFERENCE, REFERENCE_TOOLS):
        if taken in item:
            raise ExampleError(
                f"The field {taken!r} is taken: it stands for the last assistant message, or the completion. Rename it."
            )
    if isinstance(example, CompletionExample):
        return HeldOutExample(line, Prompt(example.prompt), {**item, REFERENCE: example.completion})
    if not isinstance(example, ChatExample):
        raise ExampleError(
            f"Expected either prompt/completion pairs or chat messages, found {FORMAT_NAMES[example.format]}."
        )
    messages = example.to_template()
    if nests_too_deeply({"prompt": messages}):  # as it will be in samples.jsonl
        raise ExampleError("The arguments of a tool call are nested too deeply.")
    *before, last = messages
    if not before:
        raise ExampleError("No message stands before the assistant's: there is nothing to answer to.")
    *arguments_before, arguments = example.arguments()
    calls = [
        ToolCall(call["function"]["name"], parse_json(written)).to_wire()
        for call, written in zip(last.get("tool_calls", []), arguments, strict=True)
    ]
    item[REFERENCE_TOOLS] = calls
    if last["content"] or not calls:
        item[REFERENCE] = last["content"]
    prompt = Prompt(tuple(before), tuple(example.tools or ()), tuple(example.images()), arguments_before)
    return HeldOutExample(line, prompt, item)


def missing_fields(
    example: HeldOutExample, graders: Sequence[CompiledGrader], templates: Sequence[str] = ()
) -> Iterator[LineError]:
    """The errors for fields that graders, clusterBy or slices read and the example lacks."""
    for grader in graders:
        for name in grader.missing_from(example.item):
            yield LineError(
                example.line, f"Grader {grader.name!r} reads {{{{{name}}}}}, which this example does not have."
            )
    for template in templates:
        if (error := _unrendered(template, example)) is not None:
            yield LineError(example.line, f"spec.dataset reads {error}")


def _refuse_wrong_format(file: Path, uri: str) -> None:
    """Raise DiagnosedError (DatasetInvalid) if the whole file is in a format that has no reference."""
    other = other_format(file, None, ("Chat", "PromptCompletion"))
    if other is not None:
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"Line {other[0]} of {uri}: Expected chat messages that end with the assistant's, or prompt/completion "
            f"pairs, whose answer is the reference; the whole file has {FORMAT_NAMES[other[1]]}. Name another file in "
            "spec.dataset, or add the answers.",
        )


def _refuse_wrong_fields(
    uri: str, examples: Sequence[HeldOutExample], graders: Sequence[CompiledGrader], templates: Sequence[str]
) -> None:
    """Raise DiagnosedError (InvalidSpec) if the spec reads a field that no example has: the file is not to blame."""
    if len(examples) < 2:
        return
    for grader in graders:
        lacked_by_all = set.intersection(*(set(grader.missing_from(example.item)) for example in examples))
        if lacked_by_all:
            reads = f"Grader {grader.name!r} reads {{{{{min(lacked_by_all)}}}}}"
            raise _wrong_field(uri, examples, reads, "Correct the grader.")
    for template in templates:
        if all(_unrendered(template, example) is not None for example in examples):
            raise _wrong_field(uri, examples, f"spec.dataset reads {template}", "Correct clusterBy or the slice.")


def refuse_without_tools(uri: str, examples: Sequence[HeldOutExample], graders: Sequence[CompiledGrader]) -> None:
    """Raise DiagnosedError (InvalidSpec) for a grader of tool calls where no example has a tool.

    It would give every output 1. Examples with tools that none is to call are a test of their own.
    """
    if any(example.prompt.tools or example.reference_tools for example in examples):
        return
    for grader in graders:
        if grader.item_variables == (f"item.{REFERENCE_TOOLS}",):
            raise DiagnosedError(
                Reason.INVALID_SPEC,
                f"Grader {grader.name!r} compares tool calls, and none of the {len(examples)} examples of {uri} has "
                "tools or a call: every output would score 1. Remove the grader, or add `tools` to the examples.",
            )


def _wrong_field(uri: str, examples: Sequence[HeldOutExample], reads: str, change: str) -> DiagnosedError:
    has = ", ".join(sorted(map(str, examples[0].item))[:SHOWN_FIELDS])
    return DiagnosedError(
        Reason.INVALID_SPEC,
        f"{reads}, which none of the {len(examples)} examples of {uri} has. Line {examples[0].line} has the fields "
        f"{has}. {change}",
    )


def _unrendered(template: str, example: HeldOutExample) -> MissingVariableError | None:
    """Why the template has no value for this example."""
    try:
        render(template, example.item, Sample(""))
    except MissingVariableError as error:
        return error
    return None


def keep_images(store: ImageStore, examples: Sequence[HeldOutExample], uri: str) -> list[list[Path]]:
    """The image files of each example. Raises DiagnosedError (DatasetInvalid)."""
    kept: list[list[Path]] = []
    errors: list[LineError] = []
    for example in examples:
        try:
            kept.append(store.keep_each(example.prompt.images))
        except ImageError as error:
            errors.append(example.error(str(error)))
    refuse(uri, errors)
    return kept


def tokenize_prompts(
    processor: Any,
    examples: Sequence[HeldOutExample],
    uri: str,
    context_length: int,
    images: Sequence[Sequence[Path]],
) -> list[list[int]]:
    """The token ids of each prompt, including those of its images.

    Raises DiagnosedError: DatasetInvalid for a prompt that the chat template refuses or that does not fit into the
    context, ModelInvalid for chat messages and a model without a chat template.
    """
    if not processor.chat_template and any(not isinstance(e.prompt.content, str) for e in examples):
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The model has no chat template, and {uri} has chat messages. Evaluate an instruction-tuned model, or "
            "prompt/completion pairs.",
        )
    prompts: list[list[int]] = []
    errors: list[LineError] = []
    for example, files in zip(examples, images, strict=True):
        try:
            prompt = _tokenize(processor, example.prompt, files)
        except TemplateError as error:
            errors.append(example.error(str(error)))
            continue
        if not prompt:
            errors.append(example.error("The prompt has no token."))
        elif len(prompt) >= context_length:
            message = f"The prompt has {len(prompt)} tokens and fills the model's context of {context_length}."
            errors.append(example.error(message))
        prompts.append(prompt)
    refuse(uri, errors)
    return prompts


def refuse(uri: str, errors: Sequence[LineError]) -> None:
    """Raise DiagnosedError (DatasetInvalid) if there are errors."""
    if not errors:
        return
    first = errors[0]
    uri = first.uri or uri
    others = sorted({error.line for error in errors if error.uri == first.uri} - {first.line})
    shown = ", ".join(map(str, others[:SHOWN_LINES])) + (", ..." if len(others) > SHOWN_LINES else "")
    raise DiagnosedError(
        Reason.DATASET_INVALID,
        f"Line {first.line} of {uri}: {first.message} "
        + (f"{len(others)} more line(s) are broken: {shown}. " if others else "")
        + f"{corrected(uri)}.",
    )


def _tokenize(processor: Any, prompt: Prompt, images: Sequence[Path]) -> list[int]:
    tokenizer = text_tokenizer(processor)
    if isinstance(prompt.content, str):
        return list(tokenizer(prompt.content)["input_ids"])
    if prompt.images:
        if not reads_images(processor):
            raise TemplateError("The example has images, and the model reads only text.")
        return list(encode_prompt(processor, prompt, images)["input_ids"][0])
    return prompt_ids(processor, prompt.content, prompt.tools, arguments=prompt.arguments)


def encode_prompt(
    processor: Any, prompt: Prompt, images: Sequence[Path], tensors: str | None = None
) -> Mapping[str, Any]:
    """The inputs of a vision-language model for a prompt with images. Raises TemplateError."""
    assert not isinstance(prompt.content, str)
    rendered = prompt_text(processor, prompt.content, prompt.tools, arguments=prompt.arguments)
    refuse_literals(processor, rendered)
    return vision.encode_prompt(processor, rendered.text, images, tensors)
