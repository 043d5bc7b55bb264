"""Graders: each gives an output a score from 0 to 1. Pure; the wire semantics are those of OpenAI's graders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from finetune_api.conditions import Reason
from finetune_api.evaluation import Grader, JsonSchema, StringCheck, TextSimilarity, ToolCallMatch
from finetune_trainer.evaluation.templates import (
    MissingVariableError,
    Sample,
    TemplateError,
    render,
    resolve,
    variables,
)
from finetune_trainer.generate.tool_calls import ToolCall, calls_match
from finetune_trainer.process.failures import DiagnosedError

Item = Mapping[str, Any]
"""The fields of one example, as `{{item.<field>}}` names them."""
REFERENCE_TOOLS = "reference_tools"
"""The item's field with the calls of the reference, in OpenAI's form; there in every chat example."""


@dataclass(frozen=True)
class CompiledGrader:
    """A grader whose spec has been checked."""

    name: str
    item_variables: tuple[str, ...]
    score: Callable[[Item, Sample], float]

    def grade(self, item: Item, sample: Sample) -> float:
        """The score of an output, from 0 to 1; 0 where it lacks a variable (it is no JSON, or has no such member)."""
        try:
            return self.score(item, sample)
        except MissingVariableError:
            return 0.0

    def missing_from(self, item: Item) -> list[str]:
        """The item's variables that this grader reads and the item lacks."""
        return [name for name in self.item_variables if not _has(item, name)]


def compile_graders(graders: Sequence[Grader]) -> list[CompiledGrader]:
    """Check the graders before any model is loaded. Raises DiagnosedError (InvalidSpec) naming the grader."""
    names = [grader.name for grader in graders]
    for name in names:
        if names.count(name) > 1:
            raise _invalid(name, "its name is used twice; give each grader a name of its own.")
    return [_compile(grader) for grader in graders]


def string_check(operation: str, input_text: str, reference: str) -> float:
    """OpenAI's string_check: 1.0 when the comparison holds, else 0.0."""
    match operation:
        case "Eq":
            holds = input_text == reference
        case "Ne":
            holds = input_text != reference
        case "Like":
            holds = reference in input_text
        case "ILike":
            holds = reference.casefold() in input_text.casefold()
        case _:
            raise ValueError(f"unknown operation {operation!r}")
    return float(holds)


def fuzzy_match(input_text: str, reference: str) -> float:
    """OpenAI's fuzzy_match, from 0 to 1.

    OpenAI says that it is rapidfuzz's, not which of its functions; its guide on graders calls
    `fuzz.WRatio(..., processor=utils.default_process) / 100`, and so does this. Case and punctuation do not count.
    """
    if input_text == reference:  # WRatio has 0 for two texts of punctuation only, or empty ones
        return 1.0
    return fuzz.WRatio(input_text, reference, processor=default_process) / 100


def _compile(grader: Grader) -> CompiledGrader:
    match grader.type:
        case "StringCheck":
            check = grader.string_check or StringCheck(operation="Eq")
            operation = check.operation
            return _compile_comparison(grader.name, check, lambda a, b: string_check(operation, a, b))
        case "TextSimilarity":
            return _compile_comparison(grader.name, grader.text_similarity or TextSimilarity(), fuzzy_match)
        case "JsonSchema":
            if grader.json_schema is None:
                raise _invalid(grader.name, "type JsonSchema needs the member jsonSchema.")
            return _compile_schema(grader.name, grader.json_schema)
        case "ToolCall":
            return _compile_tool_call(grader.name, grader.tool_call or ToolCallMatch())


def _compile_comparison(
    name: str, spec: StringCheck | TextSimilarity, compare: Callable[[str, str], float]
) -> CompiledGrader:
    try:
        named = variables(spec.input) + variables(spec.reference)
    except TemplateError as error:
        raise _invalid(name, str(error)) from error
    return CompiledGrader(
        name=name,
        item_variables=tuple(dict.fromkeys(variable for variable in named if variable.startswith("item."))),
        score=lambda item, sample: compare(render(spec.input, item, sample), render(spec.reference, item, sample)),
    )


def _compile_schema(name: str, spec: JsonSchema) -> CompiledGrader:
    try:
        Draft202012Validator.check_schema(spec.schema_, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        raise _invalid(name, f"its schema is no JSON Schema (2020-12): {error.message}") from error
    # An empty registry: a $ref that leaves the schema is an error, never a download.
    validator = Draft202012Validator(spec.schema_, registry=EMPTY_REGISTRY)

    def accepts(value: Any) -> bool:
        try:
            return validator.is_valid(value)
        except Unresolvable as error:
            raise _invalid(name, f"its schema refers to {error.ref!r}, which is not in it.") from error

    def score(item: Item, sample: Sample) -> float:
        try:
            return float(accepts(sample.output_json))
        except RecursionError:  # an output nested hundreds of levels deep
            return 0.0

    try:
        accepts({})
    except RecursionError as error:
        raise _invalid(name, "its schema refers to itself without end.") from error
    return CompiledGrader(name=name, item_variables=(), score=score)


def _compile_tool_call(name: str, match: ToolCallMatch) -> CompiledGrader:
    def score(item: Item, sample: Sample) -> float:
        expected = [ToolCall.from_wire(call) for call in item[REFERENCE_TOOLS]]
        try:
            return float(calls_match(sample.tool_calls, expected, match))
        except RecursionError:  # arguments nested hundreds of levels deep
            return 0.0

    return CompiledGrader(name=name, item_variables=(f"item.{REFERENCE_TOOLS}",), score=score)


def _has(item: Item, name: str) -> bool:
    try:
        resolve(name, item, Sample(""))
    except MissingVariableError:
        return False
    return True


def _invalid(grader: str, message: str) -> DiagnosedError:
    return DiagnosedError(Reason.INVALID_SPEC, f"spec.graders: {grader!r}: {message}")
