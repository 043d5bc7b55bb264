"""Schemas of strangers are checked in the operator, where they must cost little, whatever they say."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import pytest

from finetune_api.graders import GraderErrorCode
from finetune_grading import time_limit
from finetune_grading.graders.interface import InvalidGraderError, LocalGrader
from finetune_grading.sample import Row, Sample
from finetune_grading.schema_check import schema_refusal
from tests.unit.grading.graders import compiled, grade


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers to the next one twice."""
    both = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**both, f"a{levels}": {"type": "object"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (doubling(12), "applies more than 2000 subschemas to one value"),
        (doubling(200), "applies more than 2000 subschemas to one value"),
        ({"anyOf": [{"type": "object"}, {"$ref": "#"}]}, "refers to itself without end"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"then": {"$ref": "#/$defs/a"}}}},
            "refers to itself without end",
        ),
        ({"$dynamicAnchor": "a", "allOf": [{"$dynamicRef": "#a"}]}, "refers to itself without end"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "refers to '/$defs/none', which is not in it"),
        ({"$ref": "#/const", "const": {"allOf": 3}}, "refers to '#/const', which is no schema"),
        ({"$ref": "http://["}, "refers to 'http://[', which is not in it"),
        ({"$ref": "#/minimum/0", "minimum": 1}, "has a reference that can't be read"),
        ({"description": "a" * 70_000}, "is too large: at most 65536 bytes"),
        ({"enum": list(range(3000))}, "is too large: at most 2000 values"),
        (nested(40), "is too deeply nested: at most 64 levels"),
        (nested(5000), "is too deeply nested: at most 64 levels"),
        ({"properties": {"a": {"type": [[at] for at in range(900)]}}}, "has a type of 900 types"),
        ({"pattern": "a{99999999999999999999}"}, "a pattern that is too large"),
        ({"pattern": "(" * 2000 + ")" * 2000}, "a pattern that is too large"),
        ({"pattern": "(?:a|" * 1000}, "has patterns of 5000 characters"),
        ({"patternProperties": {"(?i)[a-\U0010ffff]": {}}}, "has flags or a comment in the pattern"),
        ({"pattern": "(?#[)(?i:[a-\U0010ffff])"}, "has flags or a comment in the pattern"),
        ({"pattern": "[\\u0101-\\ufffe]" * 200}, "has 200 [...] in patterns beyond Latin-1"),
        ({"items": {"$schema": "http://json-schema.org/draft-04/schema#"}}, "has a $schema inside"),
    ],
)
def test_what_would_take_long_or_can_not_work_is_refused_at_once(schema: dict[str, Any], message: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidGraderError, match="'g': its schema") as caught:
        compiled(type="JsonSchema", jsonSchema={"schema": schema})
    assert message in str(caught.value)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "schema",
    [
        doubling(8),
        nested(30),
        {"pattern": "\\(?i|[(?i)]"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$ref": "#"}}},
        {"properties": {"$schema": {"type": "string"}, "type": {"enum": ["a"]}, "next": {"$ref": "#"}}},
        {"const": {"type": list(range(20)), "$schema": "a"}},
    ],
)
def test_what_is_only_intricate_is_not_refused(schema: dict[str, Any]) -> None:
    assert schema_refusal(schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"a{at}": {} for at in range(1990)}},
        {"properties": {"a": {"allOf": [{"pattern": "[ā-\U0000fffe]"}] * 32}}},
        {"pattern": "a?" * 2048},
    ],
)
def test_the_dearest_schemas_that_are_allowed_are_checked_in_seconds_and_once(schema: dict[str, Any]) -> None:
    started = time.process_time()
    assert schema_refusal(schema) is None
    once = time.process_time() - started
    assert once < 5
    assert schema_refusal(schema) is None
    assert time.process_time() - started < once + 0.1


def test_an_output_that_multiplies_references_is_errored_and_the_next_one_graded() -> None:
    """Each level of the output has the next one checked twice."""
    twice = {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    grader = compiled(type="JsonSchema", jsonSchema={"schema": twice})
    output = "{}"
    for _ in range(40):
        output = f'{{"a": {output}}}'
    errored = grade(grader, {}, output)
    assert errored.error is not None
    assert errored.error.code is GraderErrorCode.OTHER_ERROR
    assert "follows more than 20000 references" in errored.error.details
    assert grade(grader, {}, '{"a": {}}').verdict == "Passed"


SLOW, FAST = "^(a|a)+$", '"a"'
SLOW_TEXT = "a" * 60 + "!"


@pytest.mark.parametrize(
    ("schema", "output"),
    [
        ({"pattern": SLOW}, json.dumps(SLOW_TEXT)),
        ({"items": {"anyOf": [{"type": "null"}, {"not": {"pattern": SLOW}}]}}, json.dumps([SLOW_TEXT])),
        ({"patternProperties": {SLOW: False}}, json.dumps({SLOW_TEXT: 1})),
        ({"patternProperties": {SLOW: True}, "additionalProperties": False}, json.dumps({SLOW_TEXT: 1})),
        ({"patternProperties": {SLOW: True}, "unevaluatedProperties": False}, json.dumps({SLOW_TEXT: 1})),
        ({"propertyNames": {"pattern": SLOW}}, json.dumps({SLOW_TEXT: 1})),
    ],
    ids=["a text", "within another schema", "a name", "the names left", "the names that nothing looked at", "names"],
)
def test_an_output_on_which_a_pattern_takes_for_ever_is_errored_and_the_next_one_graded(
    schema: dict[str, Any], output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit, "SECONDS", 0.1)
    grader = compiled(type="JsonSchema", jsonSchema={"schema": schema})
    errored = grade(grader, {}, output)
    assert errored.error is not None
    assert errored.error.code is GraderErrorCode.OTHER_ERROR
    assert "took more than 0.1 s of CPU time" in errored.error.details
    assert grade(grader, {}, FAST).error is None
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_after_ten_such_outputs_the_others_are_errored_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "SECONDS", 0.02)
    grader = compiled(type="JsonSchema", jsonSchema={"schema": {"pattern": SLOW}})
    assert isinstance(grader, LocalGrader)
    slow, fast = Row({}, Sample(json.dumps(SLOW_TEXT))), Row({}, Sample(FAST))
    *tried, untried = asyncio.run(grader.grade([slow] * time_limit.MOST_SLOW + [fast]))
    assert {grade.verdict for grade in tried} == {"Errored"}
    assert untried.error is not None
    assert "10 outputs before this one" in untried.error.details
    (of_another_model,) = asyncio.run(grader.grade([fast]))
    assert of_another_model.error is None


@pytest.mark.parametrize(
    ("factor", "output", "score"),
    [
        (0.01, "19.99", 1.0),
        (0.01, "19.995", 0.0),
        (0.1, "0.3", 1.0),
        (0.1, "1" + "0" * 400, 1.0),
        (3, "1" + "0" * 400, 0.0),
        (1e-300, "1e300", 1.0),
        (0.5, "-1.5", 1.0),
        (2, "4.0", 1.0),
        (0.01, '"text"', 1.0),
    ],
)
def test_a_multiple_is_one_of_the_decimal_numbers_that_are_written(factor: float, output: str, score: float) -> None:
    """In binary fractions 19.99 is no multiple of 0.01; and a float can't hold a number of 401 digits."""
    grader = compiled(type="JsonSchema", jsonSchema={"schema": {"multipleOf": factor}})
    assert grade(grader, {}, output).score == score
