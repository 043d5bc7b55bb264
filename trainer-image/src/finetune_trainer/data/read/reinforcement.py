"""Prompts that a model answers by itself, as OpenAI has them for reinforcement fine-tuning: messages that end with the
user's, and further fields, which graders read.

Part of the instant `validate` command: imports nothing heavy.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from finetune_grading.exact_json import parse_json, write_json
from finetune_trainer.data.read.conversions import without_nulls
from finetune_trainer.data.read.example_errors import ExampleError, check_prompt
from finetune_trainer.data.read.examples import ReinforcementExample
from finetune_trainer.data.read.jsonl import (
    TOO_DEEP,
    LineError,
    may_repeat_a_key,
    nests_too_deeply,
    parse,
    repeated_key,
)
from finetune_trainer.data.read.messages import Messages


class _Prompt(Struct):
    """What the model reads of a line; graders may read all of it."""

    messages: Messages | None = None
    prompt: str | None = None
    tools: list[dict[str, Any]] | None = None


class _Turn(Struct):
    role: str


class _Forms(Struct):
    """What tells prompts from examples with an answer."""

    messages: list[_Turn] | None = None
    prompt: str | None = None
    completion: object = None
    chosen: object = None


_FORMS = msgspec.json.Decoder(_Forms)


def has_no_answer(line: bytes) -> bool:
    """Whether a line ends with the user's message, or is a text without what follows it."""
    try:
        found = _FORMS.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if found.messages:
        return found.messages[-1].role == "user"
    return found.prompt is not None and found.completion is None and found.chosen is None


def read_prompt(number: int, line: bytes) -> ReinforcementExample | LineError:
    """The example in a line, or its error."""
    parsed = parse(number, line)
    if isinstance(parsed, LineError):
        return parsed
    if nests_too_deeply(parsed.value):
        return LineError(number, TOO_DEEP)
    if may_repeat_a_key(line) and (repeated := repeated_key(line)) is not None:
        return LineError(number, repeated)
    try:
        return _to_example(line, parsed.value)
    except (ExampleError, msgspec.ValidationError, ValueError) as error:
        return LineError(number, str(error))


def _to_example(line: bytes, value: object) -> ReinforcementExample:
    """Raises ExampleError; ValueError for numbers that JSON does not have."""
    item = parse_json(line.decode())
    # Tables have every key in every row.
    read = (
        {name: without_nulls(value.get(name)) for name in _Prompt.__struct_fields__}
        if isinstance(value, dict)
        else value
    )
    check_prompt(read)
    found = msgspec.convert(read, _Prompt)
    prompt = found.prompt if found.messages is None else found.messages
    return ReinforcementExample(prompt or "", write_json(item), found.tools or None)
