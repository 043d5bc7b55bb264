from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_grading.sample import MissingVariableError, Sample
from finetune_grading.templates import TemplateError, render, variables
from finetune_grading.tool_calls import ToolCall

ITEM: dict[str, Any] = {
    "reference": "os.path",
    "meta": {"level": 2, "tags": ["a", "b"], "note": None},
    "has-dash": "yes",
    "big": 123456789012345678901230,
    "injected": "{{item.reference}}",
}


@pytest.mark.parametrize(
    ("template", "output", "expected"),
    [
        ("plain text", "", "plain text"),
        ("{{item.reference}}", "", "os.path"),
        ("{{ item.reference }}", "", "os.path"),
        ("<{{item.reference}}|{{sample.output_text}}>", "json", "<os.path|json>"),
        ("{{item.has-dash}}", "", "yes"),
        ("{{item.meta.level}}", "", "2"),
        ("{{item.meta.note}}", "", "null"),
        ("{{item.meta.tags}}", "", '["a","b"]'),
        ("{{item.meta.tags.1}}", "", "b"),
        ("{{item.meta}}", "", '{"level":2,"note":null,"tags":["a","b"]}'),
        ("{{sample.output_json}}", '{"b": 1, "a": "é"}', '{"a":"é","b":1}'),
        ("{{sample.output_json.module}}", '{"module": "json"}', "json"),
        ("{{sample.output_json.a.0.b}}", '{"a": [{"b": true}]}', "true"),
        ("{{item.big}}", "", "123456789012345678901230"),
        ("{{sample.output_json}}", '{"n": [123456789012345678901230, 1.50]}', '{"n":[123456789012345678901230,1.5]}'),
        # What a value contains is text, whatever it looks like.
        ("{{item.injected}}", "", "{{item.reference}}"),
        ("{{sample.output_text}}", "{{item.reference}}", "{{item.reference}}"),
        ("{{sample.output_text}}", "\\1 {0} %s $x", "\\1 {0} %s $x"),
        ("{not} {{item.reference}} }}", "", "{not} os.path }}"),
        ('{"a":{"b":{{item.meta.level}}}}', "", '{"a":{"b":2}}'),
    ],
)
def test_a_template_is_filled_in_by_substitution_only(template: str, output: str, expected: str) -> None:
    assert render(template, ITEM, Sample(output)) == expected


@pytest.mark.parametrize(
    ("template", "output"),
    [
        ("{{item.nope}}", ""),
        ("{{item.reference.deeper}}", ""),
        ("{{item.meta.tags.2}}", ""),
        ("{{item.meta.tags.x}}", ""),
        ("{{sample.output_json}}", "no json"),
        ("{{sample.output_json}}", '{"a": NaN}'),
        ("{{sample.output_json}}", "[" * 5000),
        ("{{sample.output_json}}", '{"a": 1e400}'),
        ("{{sample.output_json}}", '{"a": "\\ud800"}'),
        ("{{sample.output_json}}", '{"a": "\n"}'),
        ("{{sample.output_json.module}}", '{"other": 1}'),
        ("{{sample.output_json.module}}", '"module"'),
    ],
)
def test_a_missing_value_is_distinguished_from_an_empty_one(template: str, output: str) -> None:
    with pytest.raises(MissingVariableError):
        render(template, ITEM, Sample(output))


@pytest.mark.parametrize(
    "template",
    [
        "{{}}",
        "{{item}}",
        "{{reference}}",
        "{{sample}}",
        "{{sample.tools}}",
        "{{sample.output_text.upper}}",
        "{{item.reference.__class__()}}",
        "{{item['reference']}}",
        "{{ 7 * 7 }}",
        "{{item.a | upper}}",
        "{% for x in item %}{{x}}{% endfor %}",
    ],
)
def test_what_is_no_variable_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="is not a variable"):
        variables(template)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{sample.output_text}", "{sample.output_text} is not"),
        ("{{sample.output_text}} or { item.meta.level }", "{ item.meta.level } is not"),
        ("{sample.output_text}}", "{sample.output_text} is not"),
        ("{{sample.output_text", "{{sample.output_text is not"),
        ("{{item.reference}} {{sample.output_text}", "{{sample.output_text} is not"),
        ("{{item.reference}} {{" + "a" * 900, "{{aaa"),
    ],
)
def test_a_variable_with_braces_too_few_is_no_text(template: str, shown: str) -> None:
    with pytest.raises(TemplateError, match="it needs") as refused:
        variables(template)
    assert str(refused.value).startswith(shown)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("template", ['Reply like {"a": {"b": {}}}', "{not}", "{item}", "a } b }} c"])
def test_braces_that_mean_no_variable_are_text(template: str) -> None:
    assert variables(template) == []


def test_attributes_of_python_objects_are_out_of_reach() -> None:
    with pytest.raises(MissingVariableError):
        render("{{item.__class__}}", ITEM, Sample(""))


@settings(deadline=None)
@given(output=st.text(), reference=st.text())
def test_text_goes_through_unchanged(output: str, reference: str) -> None:
    filled = render("{{sample.output_text}}|{{item.reference}}", {"reference": reference}, Sample(output))
    assert filled == f"{output}|{reference}"


def test_calls_are_named_as_in_openais_messages() -> None:
    sample = Sample("", (ToolCall("add", {"b": 2, "a": 1}),))
    assert render("{{sample.output_tools.0.function.name}}", ITEM, sample) == "add"
    assert render("{{sample.output_tools.0.function.arguments}}", ITEM, sample) == '{"a":1,"b":2}'
    with pytest.raises(MissingVariableError):
        render("{{sample.output_tools.1.function.name}}", ITEM, sample)
