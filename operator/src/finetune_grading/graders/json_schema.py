"""The grader JsonSchema: whether an output is JSON that a schema (draft 2020-12) accepts."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from finetune_api.graders import Grader
from finetune_grading.compiled import InvalidGraderError, LocalGrader
from finetune_grading.grade import Scored
from finetune_grading.sample import MissingVariableError, Row

_REFERENCES = ("$ref", "$dynamicRef")
_DETAILS_LENGTH = 300


def compile_json_schema(grader: Grader, pass_threshold: float) -> LocalGrader:
    """Raises InvalidGraderError for a schema that is not one, that refers out of itself, or to itself without end."""
    name = grader.name
    assert grader.json_schema is not None, "a union's required member"
    schema = grader.json_schema.schema_
    try:
        Draft202012Validator.check_schema(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        raise InvalidGraderError(
            name, f"its schema is not a JSON Schema (2020-12): at {error.json_path}: {error.message}"
        ) from error
    except RecursionError as error:
        raise InvalidGraderError(name, "its schema is nested too deeply.") from error
    try:
        _resolve_references(schema)
    except Unresolvable as error:
        raise InvalidGraderError(name, f"its schema refers to {error.ref!r}, which is not in it.") from error
    # An empty registry: a $ref that leaves the schema is an error, never a download.
    validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)
    try:
        validator.is_valid({})
    except RecursionError as error:
        raise InvalidGraderError(name, "its schema refers to itself without end.") from error
    return LocalGrader(name, pass_threshold, (), lambda row: _score(validator, row))


def _score(validator: Draft202012Validator, row: Row) -> Scored:
    """An output that is not JSON has failed, rather than kept the grader from grading: that is the question here."""
    try:
        error = next(validator.iter_errors(row.sample.output_json), None)
    except MissingVariableError as error:
        return Scored(0.0, {"error": str(error)})
    except RecursionError:
        return Scored(0.0, {"error": "The output is nested too deeply."})
    return Scored(1.0) if error is None else Scored(0.0, {"error": _message(error)})


def _message(error: ValidationError) -> str:
    return f"{error.json_path}: {error.message}"[:_DETAILS_LENGTH]


def _resolve_references(schema: Any) -> None:
    """Every reference, also those that only few outputs reach. Raises Unresolvable."""
    root: Resource[Any] = DRAFT202012.create_resource(schema)
    registry: Registry[Any] = EMPTY_REGISTRY.with_resource(root.id() or "", root)
    waiting = [(root, registry.resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        if isinstance(resource.contents, dict):
            for key in _REFERENCES:
                if isinstance(reference := resource.contents.get(key), str):
                    resolver.lookup(reference)
        waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]
