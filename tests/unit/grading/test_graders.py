from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError
from finetune_grading.graders.string_check import string_check
from finetune_grading.registered_graders import compile_graders
from finetune_grading.text_metrics import fuzzy_match
from tests.unit.grading.graders import compiled, grade


def schema_grader(schema: Any) -> CompiledGrader:
    return compiled(type="JsonSchema", jsonSchema={"schema": schema})


@pytest.mark.parametrize(
    ("operation", "output", "reference", "score"),
    [
        ("Eq", "json", "json", 1.0),
        ("Eq", "json ", "json", 0.0),
        ("Eq", "JSON", "json", 0.0),
        ("Eq", "", "", 1.0),
        ("Ne", "json", "json", 0.0),
        ("Ne", "JSON", "json", 1.0),
        ("Like", "the json module", "json", 1.0),
        ("Like", "the JSON module", "json", 0.0),
        ("Like", "js", "json", 0.0),
        ("ILike", "the JSON module", "json", 1.0),
        ("ILike", "STRASSE", "straße", 1.0),
        ("ILike", "xml", "json", 0.0),
        # Case 1 of shared/reference/evaluation.md.
        ("ILike", "The Refund", "refund", 1.0),
        ("Eq", "The Refund", "refund", 0.0),
        ("Ne", "The Refund", "refund", 1.0),
        ("Like", "The Refund", "refund", 0.0),
    ],
)
def test_each_operation_of_string_check_scores_one_or_zero(
    operation: str, output: str, reference: str, score: float
) -> None:
    assert string_check(operation, output, reference) == score


@pytest.mark.parametrize(
    ("output", "reference", "score"),
    [
        ("fuzzy wuzzy was a bear", "fuzzy wuzzy was a bear", 1.0),
        ("Fuzzy-Wuzzy!", "fuzzy wuzzy", 1.0),
        ("", "", 1.0),
        ("!!!", "!!!", 1.0),
        ("", "bear", 0.0),
        ("fuzzy wuzzy was a bear", "fuzzy wuzzy had no hair", 0.7556),
        ("the quick brown fox", "the quick brown fox jumps over the lazy dog and runs home", 0.9),
    ],
)
def test_fuzzy_match_ignores_case_and_punctuation(output: str, reference: str, score: float) -> None:
    assert fuzzy_match(output, reference) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    ("schema", "output", "score"),
    [
        ({"type": "object", "required": ["module"]}, '{"module": "os"}', 1.0),
        ({"type": "object", "required": ["module"]}, '{"name": "os"}', 0.0),
        ({"properties": {"n": {"type": "integer"}}}, '{"n": 1.5}', 0.0),
        ({"type": "object"}, "{'module': 'os'}", 0.0),
        ({"type": "object"}, '{"module": "os"} and more', 0.0),
        ({"type": "object"}, "", 0.0),
        ({"type": "number"}, "NaN", 0.0),
        ({"$ref": "#/$defs/name", "$defs": {"name": {"type": "string"}}}, '"os"', 1.0),
        ({"const": 123456789012345678901231}, "123456789012345678901231", 1.0),
        ({"const": 123456789012345678901231}, "123456789012345678901232", 0.0),
        ({"type": "integer"}, "1" + "0" * 400, 1.0),
        # Patterns are Python's, as docs/reference/graders.md says.
        ({"pattern": "^a$"}, '"a\\n"', 1.0),
        ({"pattern": "^a\\Z"}, '"a\\n"', 0.0),
        ({"pattern": "^\\d\\w$"}, '"٣é"', 1.0),
        ({"pattern": "^[0-9]$"}, '"٣"', 0.0),
        ({"items": {"$ref": "#"}}, "[" * 900 + "]" * 900, 0.0),
        ({}, "[" * 100_000, 0.0),
    ],
)
def test_an_output_passes_if_all_of_it_is_json_that_fits_the_schema(schema: Any, output: str, score: float) -> None:
    graded = grade(schema_grader(schema), {}, output)
    assert (graded.score, graded.verdict) == (score, "Passed" if score else "Failed")
    assert ("error" in graded.details) == (score == 0), "what the schema refuses is told"


@pytest.mark.parametrize(
    ("output", "verdict", "error"),
    [
        ('{"name": "a", "age": 3}', "Passed", ""),
        ('{"name": "a", "age": 3.0}', "Passed", ""),
        ('{"name": "a", "age": true}', "Failed", "$.age: True is not of type 'integer'"),
        ('{"name": "a", "age": -1}', "Failed", "$.age: -1 is less than the minimum of 0"),
        ('{"name": "a", "age": 3, "more": 1}', "Failed", "$: Additional properties are not allowed"),
        ('```json\n{"name": "a", "age": 3}\n```', "Failed", "the output is not JSON"),
    ],
)
def test_case_7_what_a_schema_accepts(output: str, verdict: str, error: str) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "additionalProperties": False,
    }
    graded = grade(schema_grader(schema), {}, output)
    assert (graded.verdict, graded.score) == (verdict, 1.0 if verdict == "Passed" else 0.0)
    assert error in graded.details.get("error", "")


def test_a_grader_compares_the_output_with_the_reference_unless_told_otherwise() -> None:
    check = compiled(type="StringCheck")
    assert grade(check, {"reference": "os"}, "os").score == 1.0
    assert grade(check, {"reference": "os"}, "re").score == 0.0


def test_a_member_of_the_output_can_be_compared_with_a_field_of_the_example() -> None:
    check = compiled(
        type="StringCheck",
        stringCheck={"input": "{{sample.output_json.module}}", "reference": "{{item.label}}", "operation": "Eq"},
    )
    assert grade(check, {"label": "os"}, '{"module": "os"}').score == 1.0
    assert grade(check, {"label": "os"}, '{"module": "re"}').score == 0.0


@pytest.mark.parametrize("operation", ["Eq", "Ne", "Like", "ILike"])
def test_an_output_without_the_json_that_is_asked_for_is_errored(operation: str) -> None:
    check = compiled(type="StringCheck", stringCheck={"input": "{{sample.output_json.module}}", "operation": operation})
    for output, code in (
        ("not json", GraderErrorCode.SAMPLE_PARSE_ERROR),
        ('{"name": "os"}', GraderErrorCode.INVALID_VARIABLE_ERROR),
    ):
        graded = grade(check, {"reference": "os"}, output)
        assert (graded.score, graded.verdict) == (None, "Errored")
        assert graded.error is not None
        assert graded.error.code is code
        assert "sample.output_json" in graded.error.details


def test_fields_that_an_example_lacks_are_named() -> None:
    check = compiled(
        type="TextSimilarity",
        textSimilarity={"input": "{{sample.output_text}} {{item.a}}", "reference": "{{item.b.c}} {{item.a}}"},
    )
    assert check.missing_from({"a": "1", "b": {}}) == ["item.b.c"]
    assert check.missing_from({"a": "1", "b": {"c": 0}}) == []


def test_a_json_schema_grader_without_its_schema_is_no_grader() -> None:
    with pytest.raises(ValidationError, match="jsonSchema is required with type JsonSchema"):
        compiled(type="JsonSchema")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"type": "strin"}}}, "'strin' is not valid"),
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"pattern": "("}}}, "is not a 'regex'"),
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"pattern": "\\p{L}"}}}, "is not a 'regex'"),
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"pattern": "\\u{61}"}}}, "is not a 'regex'"),
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"pattern": "(?<n>a)"}}}, "is not a 'regex'"),
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"$ref": "#"}}}, "without end"),
        ({"type": "JsonSchema", "jsonSchema": {"schema": {"$ref": "http://127.0.0.1:9/s"}}}, "127.0.0.1:9/s"),
        ({"type": "StringCheck", "stringCheck": {"input": "{{sample.text}}"}}, "sample.text"),
        ({"type": "TextSimilarity", "textSimilarity": {"reference": "{{ 7*7 }}"}}, "7*7"),
    ],
)
def test_a_grader_that_can_never_work_is_refused_before_anything_is_loaded(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidGraderError) as caught:
        compiled(**spec)
    assert "'g'" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("type_", ["StringCheck", "TextSimilarity"])
@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ({"input": "right", "reference": "right"}, "neither it nor reference reads anything of the output"),
        ({"input": "{{item.reference}}"}, "neither it nor reference reads anything of the output"),
        ({"input": "{sample.output_text}"}, "input: {sample.output_text} is not a variable"),
        ({"input": "{{sample.output_text"}, "input: {{sample.output_text is not a variable"),
        ({"reference": "{item.reference}"}, "reference: {item.reference} is not a variable"),
        ({"reference": "{{ sample.output_text }}"}, "it is compared with itself"),
    ],
)
def test_a_grader_that_says_the_same_whatever_a_model_writes_is_refused(
    type_: str, templates: dict[str, str], message: str
) -> None:
    member = type_[0].lower() + type_[1:]
    extra = {"operation": "Ne"} if type_ == "StringCheck" else {"metric": "BLEU"}
    with pytest.raises(InvalidGraderError) as refused:
        compiled(type=type_, **{member: {**templates, **extra}})
    assert message in str(refused.value)
    assert refused.value.code is GraderErrorCode.INVALID_VARIABLE_ERROR


@pytest.mark.parametrize("operation", ["Like", "ILike"])
def test_a_text_that_every_output_contains_is_refused_as_a_reference(operation: str) -> None:
    with pytest.raises(InvalidGraderError, match="every text contains that"):
        compiled(type="StringCheck", stringCheck={"reference": "", "operation": operation})
    assert grade(compiled(type="StringCheck", stringCheck={"reference": "", "operation": "Ne"}), {}, "a").score == 1.0


@pytest.mark.parametrize(
    "templates",
    [
        {"input": "{{item.reference}}", "reference": "{{sample.output_text}}"},
        {"input": "{{sample.output_tools.0.function.name}}", "reference": "look_up"},
        {"reference": '{"a":{"b":1}}'},
    ],
)
def test_an_output_may_be_on_either_side_and_the_other_one_fixed(templates: dict[str, str]) -> None:
    assert compiled(type="StringCheck", stringCheck=templates).name == "g"


def test_a_nested_reference_out_of_the_schema_is_refused_and_not_downloaded() -> None:
    with pytest.raises(InvalidGraderError, match=r"127\.0\.0\.1:9/schema"):
        schema_grader({"properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"$ref": {"type": "string"}}},
        {"const": {"$ref": "http://127.0.0.1:9/schema"}},
        {"$id": "urn:a", "$defs": {"b": {"$id": "urn:b", "type": "string"}}, "items": {"$ref": "urn:b"}},
        {"$defs": {"n": {"$anchor": "name"}}, "properties": {"a": {"$ref": "#name"}}},
        {"properties": {"inner": {"$ref": "#"}}},
    ],
)
def test_what_only_looks_like_a_reference_out_of_the_schema_is_none(schema: dict[str, Any]) -> None:
    assert grade(schema_grader(schema), {}, "{}").verdict in ("Passed", "Failed")


def test_two_graders_of_one_name_are_refused() -> None:
    one = Grader.from_wire({"name": "exact", "type": "StringCheck"})
    with pytest.raises(InvalidGraderError, match=r"'exact'.*twice"):
        compile_graders([one, one])


@settings(deadline=None)
@given(output=st.text(), reference=st.text())
def test_every_score_is_from_0_to_1_and_the_reference_itself_scores_1(output: str, reference: str) -> None:
    for spec in ({"type": "StringCheck"}, {"type": "TextSimilarity"}):
        check = compiled(**spec)
        score = grade(check, {"reference": reference}, output).score
        assert score is not None
        assert 0.0 <= score <= 1.0
        assert grade(check, {"reference": reference}, reference).score == 1.0


@pytest.mark.parametrize("type_", ["StringCheck", "TextSimilarity"])
def test_a_threshold_that_every_output_passes_is_refused(type_: str) -> None:
    with pytest.raises(ValidationError, match=r"(?s)passThreshold.*greater than 0"):
        compiled(type=type_, passThreshold=0)
