"""The grader JsonSchema: whether an output is JSON that a schema (draft 2020-12) accepts."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing.jsonschema import EMPTY_REGISTRY

from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.grade import RowError, Scored
from finetune_grading.graders.interface import InvalidGraderError, LocalGrader
from finetune_grading.sample import MissingVariableError, Row
from finetune_grading.schema_check import schema_refusal

MOST_FOLLOWED = 20_000
"""References that are followed for one output: some seconds. An output that is nested may multiply them."""
_DETAILS_LENGTH = 300


def compile_json_schema(grader: Grader, pass_threshold: float) -> LocalGrader:
    """Raises InvalidGraderError for a schema that can't be used. The schema is applied to outputs only."""
    assert grader.json_schema is not None, "a union's required member"
    schema = grader.json_schema.schema_
    refusal = schema_refusal(schema)
    if refusal is not None:
        raise InvalidGraderError(grader.name, f"its schema {refusal}")
    return LocalGrader(grader.name, pass_threshold, (), _BoundedSchema(schema).score)


class _BoundedSchema:
    """A schema that gives up an output for which it follows too many references."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._left = 0
        validators = {key: self._counted(Draft202012Validator.VALIDATORS[key]) for key in ("$ref", "$dynamicRef")}
        validators["multipleOf"] = _multiple_of
        # Its $schema would make another draft apply. An empty registry: nothing is downloaded.
        of_draft = {key: value for key, value in schema.items() if key != "$schema"}
        self._validator = extend(Draft202012Validator, validators)(of_draft, registry=EMPTY_REGISTRY)  # type: ignore[no-untyped-call]

    def score(self, row: Row) -> Scored:
        """An output that is not JSON has failed, rather than kept the grader from grading: that is the question here.

        Raises RowError when too many references are followed.
        """
        self._left = MOST_FOLLOWED
        try:
            error = next(self._validator.iter_errors(row.sample.output_json), None)
        except MissingVariableError as missing:
            return Scored(0.0, {"error": str(missing)})
        except RecursionError:
            return Scored(0.0, {"error": "The output is nested too deeply."})
        return Scored(1.0) if error is None else Scored(0.0, {"error": _message(error)})

    def _counted(self, follow: Any) -> Any:
        def follow_counted(*arguments: Any) -> Iterator[ValidationError]:
            self._left -= 1
            if self._left < 0:
                details = f"The schema follows more than {MOST_FOLLOWED} references for this output; refer to fewer."
                raise RowError(GraderErrorCode.OTHER_ERROR, details)
            yield from follow(*arguments) or ()

        return follow_counted


def _multiple_of(validator: Any, factor: float, value: Any, schema: Any) -> Iterator[ValidationError]:
    """Of the decimal numbers that are written: 19.99 is a multiple of 0.01, which binary fractions do not say."""
    if validator.is_type(value, "number") and _written(value) % _written(factor):
        yield ValidationError(f"{value!r} is not a multiple of {factor!r}")


def _written(number: float) -> Fraction:
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _message(error: ValidationError) -> str:
    return f"{error.json_path}: {error.message}"[:_DETAILS_LENGTH]
