"""The grader JsonSchema: whether an output is JSON that a schema (draft 2020-12) accepts."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from finetune_api.evaluation import Grader
from finetune_grading.grader import CompiledGrader, InvalidGraderError, Item
from finetune_grading.sample import Sample


def compile_json_schema(grader: Grader) -> CompiledGrader:
    """Raises InvalidGraderError for a schema that is not one, or that refers to itself without end."""
    name, spec = grader.name, grader.json_schema
    if spec is None:
        raise InvalidGraderError(name, "jsonSchema is required with type JsonSchema.")
    try:
        Draft202012Validator.check_schema(spec.schema_, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        raise InvalidGraderError(name, f"its schema is not a JSON Schema (2020-12): {error.message}") from error
    # An empty registry: a $ref that leaves the schema is an error, never a download.
    validator = Draft202012Validator(spec.schema_, registry=EMPTY_REGISTRY)

    def accepts(value: Any) -> bool:
        try:
            return validator.is_valid(value)
        except Unresolvable as error:
            raise InvalidGraderError(name, f"its schema refers to {error.ref!r}, which is not in it.") from error

    def score(item: Item, sample: Sample) -> float:
        try:
            return float(accepts(sample.output_json))
        except RecursionError:  # an output nested hundreds of levels deep
            return 0.0

    try:
        accepts({})
    except RecursionError as error:
        raise InvalidGraderError(name, "its schema refers to itself without end.") from error
    return CompiledGrader(name=name, item_variables=(), score=score)
